# SPDX-License-Identifier: Apache-2.0
"""Game engine in Cython: rules, determinization, observation, search and the self-play pool. No network, no I/O."""
