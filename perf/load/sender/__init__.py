# SPDX-License-Identifier: Apache-2.0
"""One client process of a load test: what it sends, when, and how."""
