# SPDX-License-Identifier: Apache-2.0
"""Encoder of observations (layout: contract.py)."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from mcts_ext.cards cimport lowest
from mcts_ext.contract cimport (
    AT_BIDS, AT_CARDS, AT_DEALER, AT_GAME_ROUND, AT_LEADER, AT_N_CARDS, AT_N_PLAYERS, AT_N_TRICKS,
    AT_START_CARDS, AT_TOTALS, AT_TRICKS, AT_TRUMP, AT_VOIDS, BID_NO_SEAT, BID_PENDING, CARD_HELD, CARD_ON_TABLE,
    CARD_OWN, CARD_PLAYED, CARD_UNSEEN, OBSERVATION_BYTES,
)
from mcts_ext.rules cimport Round, StateC, state_is_over
from mcts_ext.types cimport DECK, MAX_SEATS

cdef enum:
    OBSERVATION_WORDS = OBSERVATION_BYTES >> 3      # of 8 bytes


cdef void observe(const StateC* state, uint8_t* row) noexcept nogil:
    """Write the observation of the seat to act, including the other hands in `state`; the round is not over."""
    cdef int n = state.n_players
    cdef int me = state.seat_to_act
    cdef int relative, seat, trick, i, first, last
    cdef uint64_t hand
    cdef uint8_t* cards = row + AT_CARDS
    memset(row, 0, OBSERVATION_BYTES)
    row[AT_N_PLAYERS] = state.n_players
    row[AT_N_CARDS] = state.n_cards
    row[AT_TRUMP] = state.trump
    row[AT_DEALER] = <uint8_t>_relative(state.dealer, me, n)
    row[AT_N_TRICKS] = state.n_tricks
    row[AT_LEADER] = <uint8_t>_relative(state.leaders[state.n_tricks], me, n)
    row[AT_GAME_ROUND] = state.game_round
    row[AT_START_CARDS] = state.start_cards
    seat = me
    for relative in range(n):
        row[AT_BIDS + relative] = <uint8_t>(BID_PENDING if state.bids[seat] < 0 else state.bids[seat])
        row[AT_TRICKS + relative] = state.tricks_won[seat]
        row[AT_VOIDS + (relative >> 1)] |= <uint8_t>(state.voids[seat] << (4 * (relative & 1)))
        row[AT_TOTALS + 2 * relative] = <uint8_t>(state.totals[seat] & 0xFF)
        row[AT_TOTALS + 2 * relative + 1] = <uint8_t>(state.totals[seat] >> 8)
        seat = seat + 1 if seat + 1 < n else 0
    for relative in range(n, MAX_SEATS):
        row[AT_BIDS + relative] = BID_NO_SEAT
    seat = me
    for relative in range(n):
        hand = state.hands[seat]
        while hand:
            cards[lowest(hand)] = <uint8_t>(CARD_HELD + relative if relative else CARD_OWN)
            hand &= hand - 1
        seat = seat + 1 if seat + 1 < n else 0
    last = 0
    for trick in range(state.n_tricks):
        relative = _relative(state.leaders[trick], me, n)
        first = last
        last += n
        for i in range(first, last):
            cards[state.plays[i]] = <uint8_t>(CARD_PLAYED * (1 + trick) + relative)
            relative = relative + 1 if relative + 1 < n else 0
    relative = n - state.n_in_trick              # the cards on the table were played by the seats just before this one
    for i in range(last, state.n_plays):
        cards[state.plays[i]] = <uint8_t>(CARD_ON_TABLE + relative)
        relative += 1


cdef inline int _relative(int seat, int me, int n) noexcept nogil:
    return seat - me if seat >= me else seat - me + n


cdef uint64_t observation_hash(const uint8_t* row) noexcept nogil:
    """Return a 64-bit hash of one row: two lanes of multiply and fold (after wyhash)."""
    cdef uint64_t[OBSERVATION_WORDS] words
    cdef uint64_t a = <uint64_t>0x9E3779B97F4A7C15
    cdef uint64_t b = <uint64_t>0xD1B54A32D192ED03
    cdef int i
    memcpy(words, row, OBSERVATION_BYTES)
    for i in range(0, OBSERVATION_WORDS, 2):
        a = _fold(a ^ words[i], <uint64_t>0xE7037ED1A0B428DB)
        b = _fold(b ^ words[i + 1], <uint64_t>0x8EBC6AF09C88C6E3 ^ (<uint64_t>i << 32))
        a ^= b << 1
    return _fold(a ^ <uint64_t>0x589965CC75374CC3, b ^ <uint64_t>0x1D8E4E27C47D124F)


cdef extern from *:
    """
    static inline uint64_t blob_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    uint64_t _fold "blob_fold"(uint64_t a, uint64_t b) noexcept nogil


def observation(Round table not None, *, with_others=True):
    """Return the observation of the seat to act as `F` bytes; raise ValueError if the round is over.

    `with_others=False` leaves out the other seats' hands: the information set alone.
    """
    cdef uint8_t[OBSERVATION_BYTES] row
    cdef int card
    if state_is_over(&table.state):
        raise ValueError("expected a round in progress, got a finished one")
    observe(&table.state, row)
    if not with_others:
        for card in range(AT_CARDS, AT_CARDS + DECK):
            if row[card] > CARD_HELD:
                row[card] = CARD_UNSEEN
    return (<char*>row)[:OBSERVATION_BYTES]
