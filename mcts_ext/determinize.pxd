# SPDX-License-Identifier: Apache-2.0
"""A deal of the unseen cards, uniform over all that agree with what one seat knows."""

from mcts_ext.rng cimport RngC
from mcts_ext.rules cimport StateC

cdef void determinize(StateC* state, int seat, RngC* rng) noexcept nogil
cdef void construct(StateC* state, int seat, RngC* rng) noexcept nogil
