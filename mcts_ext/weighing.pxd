# SPDX-License-Identifier: Apache-2.0
"""Deals kept by how likely the network finds what the other seats have bid and played in them."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from mcts_ext.batch cimport BatchC
from mcts_ext.rng cimport RngC
from mcts_ext.rules cimport StateC

cdef enum:
    MAX_ACTIONS = 60            # of a round: 8 bids and 52 cards

cdef struct CandidateC:
    StateC      dealt           # the position that is searched, with hands drawn for the others
    StateC      replayed        # the same deal from its beginning, as far as it was replayed
    double      log_weight
    double      weight_so_far   # of this one and those before it, once all is weighed
    uint64_t    legal           # of the choice that is weighed
    int32_t     row             # of the batch

cdef struct WeighingC:
    CandidateC* candidates      # [n]
    int         n
    int         n_actions       # of the round so far
    int         n_replayed
    bint        is_done
    bint        is_waiting
    uint8_t     seat            # that searches: its own choices tell nothing
    double      pick            # of the systematic resampling
    uint8_t[MAX_ACTIONS] actions

cdef int weighing_alloc(WeighingC* weighing, int n) except -1
cdef void weighing_free(WeighingC* weighing) noexcept nogil
cdef void weighing_start(WeighingC* weighing, const StateC* state, RngC* rng) noexcept nogil
cdef bint weighing_collect(WeighingC* weighing, BatchC* batch, int64_t* n_asked) noexcept nogil
cdef void weighing_apply(WeighingC* weighing, const BatchC* batch) noexcept nogil
cdef const StateC* weighing_kept(const WeighingC* weighing, int i, int n_kept) noexcept nogil
