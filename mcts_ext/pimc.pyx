# SPDX-License-Identifier: Apache-2.0
"""Perfect-information Monte Carlo (Levy 1989; Long et al. 2010): a classical player of a fixed strength.

A decision draws worlds: deals uniform over those consistent with the seat's information set (determinize.pyx). Each
legal action is valued in each world by the seat's own score at the end of the round, to which all seats play with
*the rule*, except that the last `EXACT` tricks are solved with open hands: max^n (Luckhardt and Irani 1986), every
seat for its own score. The action with the greatest mean is played; of equal ones, one after which the others score
least; of these, one drawn from the seed.

The rule looks at no other hand. It is the `heuristic` bot (clients/arena/bots.py) in C, with exact chances of what
another seat may hold: it estimates which cards take a trick, bids what is worth most, and plays the card with the
largest chance of making the bid. With the bid lost, it takes what it can, to spoil the other bids.

Matches are measured against this player: a change of the rule or a constant makes them incomparable.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from mcts_ext.cards cimport full_deck, lowest, nth_bit, popcount, suit_mask, suit_of
from mcts_ext.contract cimport FIRST_CARD_ACTION, MAX_HAND, NO_TRUMP
from mcts_ext.determinize cimport determinize
from mcts_ext.rng cimport FOR_PIMC, RngC, any_int, rng_below, rng_seed
from mcts_ext.rules cimport (
    Round, StateC, state_action_offset, state_apply, state_is_bidding, state_is_over, state_legal, state_score,
    state_skip_forced,
)
from mcts_ext.types cimport DECK, MAX_LEGAL

from mcts_ext.errors import InvalidConfig

cdef enum:
    EXACT = 2                       # tricks; a seat then has one choice at most, so a search has 2^P ends at most

cdef double SIDE_CARD_PLAYED = 0.85
cdef double TRUMP_RUFFS = 0.25
cdef double UNWILLING = 0.5
cdef double DEMAND = 0.5            # these four are the heuristic's, which says what they mean

cdef double[DECK][MAX_HAND + 1][MAX_HAND + 1] NONE     # [n][h][k]: chance that h of n cards are none of k given ones


cdef void _fill_none() noexcept:
    cdef int n, h, k
    for n in range(DECK):
        for k in range(MAX_HAND + 1):
            NONE[n][0][k] = 1.0
            for h in range(1, min(MAX_HAND, n) + 1):
                NONE[n][h][k] = NONE[n][h - 1][k] * max(n - k - h + 1, 0) / (n - h + 1)

_fill_none()


cdef inline double _has_none(const StateC* state, int seat, uint64_t unseen, int suit, int above) noexcept nogil:
    """Return the chance that another seat holds no unseen card of a suit whose index is at least `above`."""
    if state.voids[seat] >> suit & 1:
        return 1.0
    return NONE[popcount(unseen)][popcount(state.hands[seat])][popcount(unseen & suit_mask(suit) >> above << above)]


cdef double _cannot_beat(const StateC* state, int seat, uint64_t unseen, int card, int led) noexcept nogil:
    """Return the chance that another seat cannot beat `card` in a trick of the suit `led`."""
    cdef int suit = suit_of(card)
    cdef double no_higher = _has_none(state, seat, unseen, suit, card)
    if suit == state.trump:
        return no_higher if led == suit else 1.0 - _has_none(state, seat, unseen, led, 0) * (1.0 - no_higher)
    if state.trump == NO_TRUMP:
        return no_higher
    return no_higher * (
        1.0 - _has_none(state, seat, unseen, suit, 0) * (1.0 - _has_none(state, seat, unseen, state.trump, 0)))


cdef double _later(const StateC* state, uint64_t unseen, int card) noexcept nogil:
    """Return the chance that a card takes a later trick."""
    cdef double holds = 1.0
    cdef int seat
    for seat in range(state.n_players):
        if seat != state.seat_to_act:
            holds *= _cannot_beat(state, seat, unseen, card, suit_of(card))
    return holds + (1.0 - holds) * TRUMP_RUFFS if suit_of(card) == state.trump else holds * SIDE_CARD_PLAYED


cdef double _now(const StateC* state, uint64_t unseen, int card) noexcept nogil:
    """Return the chance that a card takes the current trick."""
    cdef uint32_t suit = suit_of(card)
    cdef int led = state.led_suit if state.n_in_trick > 0 else suit
    cdef int seat = state.seat_to_act
    cdef double holds = 1.0, beaten
    cdef int _turn
    if state.n_in_trick > 0 and (
        card < state.best_card if suit == suit_of(state.best_card) else suit != state.trump
    ):
        return 0.0
    for _turn in range(state.n_players - state.n_in_trick - 1):
        seat = seat + 1 if seat + 1 < state.n_players else 0
        beaten = 1.0 - _cannot_beat(state, seat, unseen, card, led)
        holds *= 1.0 - (beaten if state.bids[seat] > state.tricks_won[seat] else UNWILLING * beaten)
    return holds


cdef inline void _add_card(double* tricks, double chance, int most) noexcept nogil:
    """Extend the distribution of the tricks taken, 0..most, by a card that takes one with this chance."""
    cdef int k
    for k in range(most, 0, -1):
        tricks[k] += (tricks[k - 1] - tricks[k]) * chance
    tricks[0] *= 1.0 - chance


cdef inline bint _can_make(const StateC* state, int seat) noexcept nogil:
    """Return whether the bid is within the tricks left; `seat` is to act."""
    cdef int needed = state.bids[seat] - state.tricks_won[seat]
    return 0 <= needed <= <int>popcount(state.hands[seat])


cdef int _rule_bid(const StateC* state, uint64_t legal) noexcept nogil:
    """Return the legal bid b with the largest (10 + b) P(b tricks)."""
    cdef uint64_t hand = state.hands[state.seat_to_act]
    cdef uint64_t unseen = full_deck() & ~hand
    cdef double[MAX_HAND + 1] tricks
    cdef double demand = -state.n_bids / <double>state.n_players    # above 0 if the bids claim more than their share
    cdef double worth, most = -1.0
    cdef int seat, bid, best = 0
    for seat in range(state.n_players):
        demand += max(state.bids[seat], 0) / <double>state.n_cards
    memset(tricks, 0, sizeof(tricks))
    tricks[0] = 1.0
    while hand:
        _add_card(tricks, min(max(_later(state, unseen, lowest(hand)) * (1.0 - DEMAND * demand), 0.0), 1.0),
                  state.n_cards)
        hand &= hand - 1
    while legal:
        bid = lowest(legal)
        legal &= legal - 1
        worth = (10 + bid) * tricks[bid]
        if worth > most:
            most = worth
            best = bid
    return best


cdef int _rule_card(const StateC* state, uint64_t legal) noexcept nogil:
    """Return the legal card with the largest chance of making the bid or, with the bid lost, of taking the trick.

    Ties go to the lower rank while a trick is wanted, else to the higher one.
    """
    cdef int seat = state.seat_to_act
    cdef uint64_t hand = state.hands[seat]
    cdef uint64_t unseen = full_deck() & ~(state.played | hand)
    cdef int needed = state.bids[seat] - state.tricks_won[seat]
    cdef bint can_make = _can_make(state, seat)
    cdef double[DECK] later
    cdef double[MAX_HAND + 1] tricks
    cdef double worth, wins, most = -1.0
    cdef uint64_t rest
    cdef int card, best = 0
    rest = hand if can_make else 0
    while rest:
        card = lowest(rest)
        rest &= rest - 1
        later[card] = _later(state, unseen, card)
    while legal:
        card = lowest(legal)
        legal &= legal - 1
        wins = worth = _now(state, unseen, card)
        if can_make:
            memset(tricks, 0, sizeof(tricks))
            tricks[0] = 1.0
            rest = hand & ~(<uint64_t>1 << card)
            while rest:
                _add_card(tricks, later[lowest(rest)], needed)
                rest &= rest - 1
            worth = (1.0 - wins) * tricks[needed]
            if needed > 0:
                worth += wins * tricks[needed - 1]
        if worth > most or worth == most and (card % 13 > best % 13) == (needed == 0):
            most = worth
            best = card
    return best


cdef inline int _rule(const StateC* state, uint64_t legal) noexcept nogil:
    if state_is_bidding(state):
        return _rule_bid(state, legal)
    return FIRST_CARD_ACTION + _rule_card(state, legal)


cdef void _finish(StateC* state) noexcept nogil:
    """Play to the end of the round: by the rule, then the last tricks by max^n.

    A seat's score is 0 or 10 + bid, so the first card that makes the bid is best. The rule's card is tried first, then
    the others from the lowest; if none makes it, the rule's stays.
    """
    cdef StateC start, other
    cdef uint64_t legal
    cdef int seat, action
    while True:
        state_skip_forced(state)
        if state_is_over(state):
            return
        legal = state_legal(state)
        seat = state.seat_to_act
        action = _rule(state, legal)
        if not state_is_bidding(state) and state.n_cards - state.n_tricks <= EXACT and _can_make(state, seat):
            break
        state_apply(state, action)
    memcpy(&start, state, sizeof(StateC))
    state_apply(state, action)
    _finish(state)
    legal ^= <uint64_t>1 << (action - FIRST_CARD_ACTION)
    while legal and state_score(state, seat) == 0:
        memcpy(&other, &start, sizeof(StateC))
        state_apply(&other, FIRST_CARD_ACTION + <int>lowest(legal))
        legal &= legal - 1
        _finish(&other)
        if state_score(&other, seat) > 0:
            memcpy(state, &other, sizeof(StateC))


cdef int _choose(const StateC* table, int n_worlds, RngC* rng) noexcept nogil:
    """Return the action to play. Advances rng."""
    cdef uint64_t legal = state_legal(table)
    cdef int n = popcount(legal)
    cdef int offset = state_action_offset(table)
    cdef int64_t[MAX_LEGAL] own
    cdef int64_t[MAX_LEGAL] others
    cdef StateC world, end
    cdef int k, seat, _world, best = 0, n_best = 1
    memset(own, 0, sizeof(own))
    memset(others, 0, sizeof(others))
    for _world in range(n_worlds):
        memcpy(&world, table, sizeof(StateC))
        determinize(&world, table.seat_to_act, rng)
        for k in range(n):
            memcpy(&end, &world, sizeof(StateC))
            state_apply(&end, offset + <int>nth_bit(legal, k))
            _finish(&end)
            own[k] += state_score(&end, table.seat_to_act)
            for seat in range(table.n_players):
                others[k] += state_score(&end, seat)        # own points included: they are equal where this decides
    for k in range(1, n):
        if own[k] > own[best] or own[k] == own[best] and others[k] < others[best]:
            best = k
            n_best = 1
        elif own[k] == own[best] and others[k] == others[best]:
            n_best += 1
            if rng_below(rng, n_best) == 0:
                best = k
    return offset + <int>nth_bit(legal, best)


def choose(Round table not None, *, int worlds, seed):
    """Return the action that the seat to act plays, a function of its information set, `worlds` and `seed`.

    Raises:
        InvalidConfig: if the round is over, or `worlds` lies outside 1..10000.
    """
    cdef RngC rng
    cdef int action
    _check_in_progress(table)
    if not 1 <= worlds <= 10_000:
        raise InvalidConfig(f"expected 1..10000 worlds, got {worlds}")
    rng_seed(&rng, FOR_PIMC, any_int(seed), 0)
    with nogil:
        action = _choose(&table.state, worlds, &rng)
    return action


def rule_action(Round table not None):
    """Return the rule's action for the seat to act; raise InvalidConfig if the round is over."""
    _check_in_progress(table)
    return _rule(&table.state, state_legal(&table.state))


def finished(Round table not None):
    """Return a copy of the round, played to its end as in a world."""
    cdef Round twin = table.copy()
    _finish(&twin.state)
    return twin


def _check_in_progress(table):
    if table.is_over:
        raise InvalidConfig("expected a round in progress, got a finished one; deal another")
