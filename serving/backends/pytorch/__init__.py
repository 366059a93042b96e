# SPDX-License-Identifier: Apache-2.0
"""Python-based backend `pytorch`."""
