# SPDX-License-Identifier: Apache-2.0
"""Determinizations weighted by the network's probability of the other seats' bids and plays."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from mcts_ext.batch cimport BatchC
from mcts_ext.rng cimport RngC
from mcts_ext.rules cimport StateC

cdef enum:
    MAX_ACTIONS = 60            # actions per round: 8 bids and 52 cards

cdef struct CandidateC:
    StateC      dealt           # the searched position with hands drawn for the other seats
    StateC      replayed        # the same deal from the first bid, as far as it was replayed
    double      log_weight
    double      weight_so_far   # cumulative weight up to this candidate, once all are weighed
    uint64_t    legal           # legal actions of the choice being weighed
    int32_t     row             # in the batch

cdef struct WeighingC:
    CandidateC* candidates      # [n]
    int         n
    int         n_actions       # in the round so far
    int         n_replayed
    bint        is_done
    bint        is_waiting
    uint8_t     seat            # the searching seat: its own choices carry no information
    double      pick            # offset of the systematic resampling, in [0, 1)
    uint8_t[MAX_ACTIONS] actions

cdef int weighing_alloc(WeighingC* weighing, int n) except -1
cdef void weighing_free(WeighingC* weighing) noexcept nogil
cdef void weighing_start(WeighingC* weighing, const StateC* state, RngC* rng) noexcept nogil
cdef bint weighing_collect(WeighingC* weighing, BatchC* batch, int64_t* n_asked) noexcept nogil
cdef void weighing_apply(WeighingC* weighing, const BatchC* batch) noexcept nogil
cdef const StateC* weighing_kept(const WeighingC* weighing, int i, int n_kept) noexcept nogil
