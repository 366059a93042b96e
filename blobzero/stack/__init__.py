# SPDX-License-Identifier: Apache-2.0
"""The complete system in containers."""
