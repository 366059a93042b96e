# SPDX-License-Identifier: Apache-2.0
"""A person at the table in the terminal."""
