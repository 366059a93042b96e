# SPDX-License-Identifier: Apache-2.0
"""Encoder of observations (layout: contract.py)."""

from libc.stdint cimport uint8_t, uint64_t

from mcts_ext.rules cimport StateC

cdef void observe(const StateC* state, uint8_t* row) noexcept nogil
cdef uint64_t observation_hash(const uint8_t* row) noexcept nogil
