# SPDX-License-Identifier: Apache-2.0
"""Clients of the network: evaluators, self-play workers and their fleet, matches, records. No torch."""
