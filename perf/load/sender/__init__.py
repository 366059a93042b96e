# SPDX-License-Identifier: Apache-2.0
"""Client process of a load test."""
