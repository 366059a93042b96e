# SPDX-License-Identifier: Apache-2.0
"""Deals of self-play: independent rounds, or rounds of whole games with running totals."""

from libc.stdint cimport int64_t, uint16_t, uint64_t

from mcts_ext.rng cimport RngC
from mcts_ext.rules cimport StateC

cpdef enum:
    ROUNDS_APART = 32            # round i of game g has number ROUNDS_APART * g + i; a game has 28 rounds at most

cdef struct DealsC:
    uint64_t seed
    int pairs[64][2]             # (players, cards) to draw from
    int n_pairs
    bint is_games                # whole games: `cards` is the largest hand

cdef int deals_set(DealsC* deals, seed, deal) except -1
cdef int deals_check(const DealsC* deals, const int64_t[::1] numbers) except -1
cdef int deals_n_rounds(const DealsC* deals, int64_t number) noexcept nogil
cdef void deals_start(
    const DealsC* deals, int64_t number, const uint16_t* totals, StateC* state, RngC* rng
) noexcept nogil
