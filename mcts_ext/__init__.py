# SPDX-License-Identifier: Apache-2.0
"""The engine: rules, determinization, observation, search and the pool of games. Cython, no network, no I/O."""
