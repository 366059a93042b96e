# SPDX-License-Identifier: Apache-2.0
"""Determinization: a uniform deal of the unseen cards consistent with one seat's information set."""

from mcts_ext.rng cimport RngC
from mcts_ext.rules cimport StateC

cdef void determinize(StateC* state, int seat, RngC* rng) noexcept nogil
