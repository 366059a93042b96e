# SPDX-License-Identifier: Apache-2.0
"""From model files to a version that a server serves, or to nothing changed."""
