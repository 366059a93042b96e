# SPDX-License-Identifier: Apache-2.0
"""Publishing of model files as versions in a model repository, as transactions."""
