# SPDX-License-Identifier: Apache-2.0
"""Interactive play in the terminal."""
