# SPDX-License-Identifier: Apache-2.0
"""The whole system in containers."""
