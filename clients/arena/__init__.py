# SPDX-License-Identifier: Apache-2.0
"""Matches: players, duplicate deals, ratings."""
