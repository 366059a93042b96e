# SPDX-License-Identifier: Apache-2.0
"""Rules of Blob on a plain struct: deal, legal actions, apply, score (stated in docs/rules.md)."""

cimport cython
from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t

from mcts_ext.contract cimport FIRST_CARD_ACTION, MAX_HAND
from mcts_ext.rng cimport RngC
from mcts_ext.types cimport DECK, MAX_SEATS

cdef struct StateC:                  # one round; memcpy clones it
    uint64_t hands[MAX_SEATS]        # cards held now
    uint64_t played                  # cards played so far
    uint16_t totals[MAX_SEATS]       # game points before this round
    int8_t   bids[MAX_SEATS]         # 0..13, -1 before the seat has bid
    uint8_t  tricks_won[MAX_SEATS]
    uint8_t  voids[MAX_SEATS]        # 4-bit set: suits the seat has shown void in, by not following
    uint8_t  plays[DECK]             # cards in the order played
    uint8_t  leaders[MAX_HAND]       # seat that led each trick begun so far
    uint8_t  n_players
    uint8_t  n_cards                 # cards dealt to each seat
    uint8_t  trump                   # suit, or NO_TRUMP
    uint8_t  dealer
    uint8_t  seat_to_act
    uint8_t  n_bids
    uint8_t  n_plays
    uint8_t  n_tricks                # finished tricks
    uint8_t  n_in_trick              # cards on the table
    uint8_t  led_suit                # of the current trick, once a card lies there
    uint8_t  best_card               # winning the current trick so far
    uint8_t  best_seat
    uint8_t  game_round              # rounds of the game finished before this one
    uint8_t  start_cards             # C of the game, 0 in an independent round

cdef inline bint state_is_over(const StateC* state) noexcept nogil:
    return state.n_tricks == state.n_cards

cdef inline bint state_is_bidding(const StateC* state) noexcept nogil:
    return state.n_bids < state.n_players

cdef inline int state_action_offset(const StateC* state) noexcept nogil:
    """Return the offset from a bit of the legal mask to the action: 0 for bids, 14 for cards."""
    return 0 if state.n_bids < state.n_players else FIRST_CARD_ACTION

cdef void state_start(StateC* state, int n_players, int n_cards, int dealer, int trump) noexcept nogil
cdef void state_deal(StateC* state, int n_players, int n_cards, int dealer, int trump, RngC* rng) noexcept nogil
cdef uint64_t state_legal(const StateC* state) noexcept nogil
cdef void state_apply(StateC* state, int action) noexcept nogil
cdef void state_skip_forced(StateC* state) noexcept nogil
cdef int state_score(const StateC* state, int seat) noexcept nogil
cdef void state_values(const StateC* state, float* values) noexcept nogil
cdef list bit_list(uint64_t mask, int offset)


@cython.final
cdef class Round:
    cdef StateC state
