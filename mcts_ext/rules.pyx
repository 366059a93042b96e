# SPDX-License-Identifier: Apache-2.0
"""Rules of Blob: `StateC`, the functions on it, and `Round`, the Python view of one round.

Functions on `StateC` trust their arguments; `Round` checks them. A state holds what the rules need and the whole
history (cards in order of play, leader of each trick), so an observation can be derived from it.
"""

cimport cython
from libc.string cimport memcpy, memset

from mcts_ext.cards cimport full_deck, lowest, random_subset, suit_mask, suit_of
from mcts_ext.contract cimport NO_TRUMP
from mcts_ext.rng cimport FOR_DEAL, any_int, rng_seed

from mcts_ext.errors import IllegalAction, InvalidDeal

from mcts_ext import names


cdef void state_start(StateC* state, int n_players, int n_cards, int dealer, int trump) noexcept nogil:
    """Reset to the start of the bidding; the caller fills in the hands."""
    memset(state, 0, sizeof(StateC))
    memset(state.bids, 0xFF, sizeof(state.bids))
    state.n_players = <uint8_t>n_players
    state.n_cards = <uint8_t>n_cards
    state.dealer = <uint8_t>dealer
    state.trump = <uint8_t>trump
    state.seat_to_act = <uint8_t>((dealer + 1) % n_players)
    state.leaders[0] = state.seat_to_act


cdef void state_deal(StateC* state, int n_players, int n_cards, int dealer, int trump, RngC* rng) noexcept nogil:
    """Deal uniformly. Advances rng."""
    cdef uint64_t deck = full_deck()
    cdef int seat
    state_start(state, n_players, n_cards, dealer, trump)
    for seat in range(n_players):
        state.hands[seat] = random_subset(deck, n_cards, rng)
        deck ^= state.hands[seat]


cdef uint64_t state_legal(const StateC* state) noexcept nogil:
    """Return the mask of legal actions, non-empty until the round is over: bit b is bid b, later bit c is card c."""
    cdef uint64_t mask
    cdef int seat, forbidden
    if state.n_bids < state.n_players:
        mask = (<uint64_t>1 << (state.n_cards + 1)) - 1
        if state.n_bids + 1 == state.n_players:      # the hook: the dealer may not make the bids sum to N
            forbidden = state.n_cards
            for seat in range(state.n_players):
                if state.bids[seat] > 0:
                    forbidden -= state.bids[seat]
            if forbidden >= 0:
                mask &= ~(<uint64_t>1 << forbidden)
        return mask
    cdef uint64_t hand = state.hands[state.seat_to_act]
    if state.n_in_trick > 0:
        mask = hand & suit_mask(state.led_suit)
        if mask != 0:
            return mask
    return hand


cdef void state_apply(StateC* state, int action) noexcept nogil:
    """Play a legal action."""
    cdef uint32_t seat = state.seat_to_act
    cdef uint32_t card, suit
    cdef uint64_t bit
    if state.n_bids < state.n_players:
        state.bids[seat] = <int8_t>action
        state.n_bids += 1
        state.seat_to_act = <uint8_t>(seat + 1 if seat + 1 < state.n_players else 0)
        return
    card = action - FIRST_CARD_ACTION
    suit = suit_of(card)
    bit = <uint64_t>1 << card
    state.hands[seat] ^= bit
    state.played |= bit
    state.plays[state.n_plays] = <uint8_t>card
    state.n_plays += 1
    if state.n_in_trick == 0:
        state.led_suit = <uint8_t>suit
        state.best_card = <uint8_t>card
        state.best_seat = <uint8_t>seat
    else:
        if suit != state.led_suit:
            state.voids[seat] |= <uint8_t>(1 << state.led_suit)
        if suit == suit_of(state.best_card):
            if card > state.best_card:
                state.best_card = <uint8_t>card
                state.best_seat = <uint8_t>seat
        elif suit == state.trump:
            state.best_card = <uint8_t>card
            state.best_seat = <uint8_t>seat
    state.n_in_trick += 1
    if state.n_in_trick < state.n_players:
        state.seat_to_act = <uint8_t>(seat + 1 if seat + 1 < state.n_players else 0)
        return
    state.n_in_trick = 0
    state.n_tricks += 1
    state.tricks_won[state.best_seat] += 1
    state.seat_to_act = state.best_seat
    if state.n_tricks < state.n_cards:
        state.leaders[state.n_tricks] = state.best_seat


cdef void state_skip_forced(StateC* state) noexcept nogil:
    """Play forced moves: afterwards the seat to act has a choice, or the round is over."""
    cdef uint64_t legal
    while state.n_tricks < state.n_cards:
        legal = state_legal(state)
        if legal & (legal - 1):
            return
        state_apply(state, state_action_offset(state) + <int>lowest(legal))


cdef int state_score(const StateC* state, int seat) noexcept nogil:
    """Return the points of a seat in a finished round: 10 + bid if the bid was made exactly, otherwise 0."""
    if state.tricks_won[seat] == state.bids[seat]:
        return 10 + state.bids[seat]
    return 0


cdef void state_values(const StateC* state, float* values) noexcept nogil:
    """Write the exact values of a finished round by absolute seat: round score / (10 + N)."""
    cdef int seat
    cdef float unit = <float>(1.0 / (10 + state.n_cards))
    for seat in range(state.n_players):
        values[seat] = <float>state_score(state, seat) * unit


cdef list bit_list(uint64_t mask, int offset):
    """Return the indices of the set bits, ascending, each plus `offset`."""
    cdef list indices = []
    while mask:
        indices.append(offset + <int>lowest(mask))
        mask &= mask - 1
    return indices


@cython.final
cdef class Round:
    """One round: bids, then tricks. Seats are absolute, clockwise from 0."""

    def __init__(self, hands, *, dealer, trump=None, totals=None, game_round=0, start_cards=0):
        hands = [list(hand) for hand in hands]
        n_players = len(hands)
        n_cards = len(hands[0]) if n_players else 0
        _check_deal(n_players, n_cards, dealer, trump)
        cdef uint64_t seen = 0
        cdef uint64_t bit
        cdef StateC state            # kept only if every check passes
        state_start(&state, n_players, n_cards, dealer, NO_TRUMP if trump is None else trump)
        for seat, hand in enumerate(hands):
            if len(hand) != n_cards:
                raise InvalidDeal(f"expected {n_cards} cards in every hand, got {len(hand)} for seat {seat}")
            for card in hand:
                if not 0 <= card < DECK:
                    raise InvalidDeal(f"expected card indices 0..51, got {card} for seat {seat}")
                bit = <uint64_t>1 << <int>card
                if seen & bit:
                    raise InvalidDeal(f"expected every card once, got {names.card(card)} twice")
                seen |= bit
                state.hands[seat] |= bit
        if not 0 <= game_round <= 255 or not 0 <= start_cards <= MAX_HAND:
            raise InvalidDeal(
                f"expected game_round in 0..255 and start_cards in 0..13, got {game_round} and {start_cards}"
            )
        if totals is not None:
            totals = list(totals)
            if len(totals) != n_players:
                raise InvalidDeal(f"expected {n_players} totals, got {len(totals)}")
            for seat, total in enumerate(totals):
                if not 0 <= total <= 0xFFFF:
                    raise InvalidDeal(f"expected totals in 0..65535, got {total} for seat {seat}")
                state.totals[seat] = total
        state.game_round = game_round
        state.start_cards = start_cards
        self.state = state

    @staticmethod
    def deal(n_players, n_cards, dealer, trump, seed):
        """Deal a random round; equal arguments give equal hands."""
        _check_deal(n_players, n_cards, dealer, trump)
        cdef RngC rng
        cdef Round dealt = Round.__new__(Round)
        rng_seed(&rng, FOR_DEAL, any_int(seed), 0)
        state_deal(&dealt.state, n_players, n_cards, dealer, NO_TRUMP if trump is None else trump, &rng)
        return dealt

    def copy(self):
        """Return an independent copy."""
        cdef Round twin = Round.__new__(Round)
        memcpy(&twin.state, &self.state, sizeof(StateC))
        return twin

    @property
    def n_players(self):
        return self.state.n_players

    @property
    def n_cards(self):
        """Cards dealt to each seat."""
        return self.state.n_cards

    @property
    def dealer(self):
        return self.state.dealer

    @property
    def trump(self):
        return None if self.state.trump == NO_TRUMP else self.state.trump

    @property
    def is_over(self):
        return bool(state_is_over(&self.state))

    @property
    def is_bidding(self):
        return bool(state_is_bidding(&self.state))

    @property
    def seat_to_act(self):
        """Seat to act, None if the round is over."""
        return None if state_is_over(&self.state) else self.state.seat_to_act

    @property
    def hands(self):
        """Cards held now, one sorted list of card indices per seat."""
        return [bit_list(self.state.hands[seat], 0) for seat in range(self.state.n_players)]

    @property
    def bids(self):
        """One entry per seat; None before it has bid."""
        return [None if self.state.bids[s] < 0 else self.state.bids[s] for s in range(self.state.n_players)]

    @property
    def tricks_won(self):
        return [self.state.tricks_won[seat] for seat in range(self.state.n_players)]

    @property
    def voids(self):
        """Per seat, the suits in which it has shown void by not following."""
        return [bit_list(self.state.voids[seat], 0) for seat in range(self.state.n_players)]

    @property
    def totals(self):
        """Game points before this round, per seat."""
        return [self.state.totals[seat] for seat in range(self.state.n_players)]

    @property
    def game_round(self):
        return self.state.game_round

    @property
    def start_cards(self):
        return self.state.start_cards

    @property
    def tricks(self):
        """Every trick begun so far as a list of (seat, card), in order of play."""
        cdef int n = self.state.n_players
        tricks = []
        for start in range(0, self.state.n_plays, max(n, 1)):      # n is 0 before the deal
            leader = self.state.leaders[start // n]
            cards = range(start, min(start + n, self.state.n_plays))
            tricks.append([((leader + i - start) % n, self.state.plays[i]) for i in cards])
        return tricks

    def legal_actions(self):
        """Return the legal actions in ascending order; empty if the round is over."""
        if state_is_over(&self.state):
            return []
        return bit_list(state_legal(&self.state), state_action_offset(&self.state))

    def apply(self, action):
        """Play an action; raise IllegalAction and change nothing if the rules forbid it."""
        cdef int offset = state_action_offset(&self.state)
        if (
            isinstance(action, bool)
            or state_is_over(&self.state)
            or not 0 <= action - offset < DECK
            or not state_legal(&self.state) >> <int>(action - offset) & 1
        ):
            raise IllegalAction(action, self.seat_to_act, self.legal_actions())
        state_apply(&self.state, action)

    def scores(self):
        """Return the points per seat of a finished round; raise ValueError before its end."""
        if not state_is_over(&self.state):
            raise ValueError("expected a finished round, got one in progress; play on until is_over")
        return [state_score(&self.state, seat) for seat in range(self.state.n_players)]

    def __str__(self):
        """Return the whole table with open hands: one line per seat, one per trick."""
        trump = names.suit(self.trump)
        lines = [f"{self.n_players} players, {self.n_cards} cards, trump {trump}, dealer seat {self.dealer}"]
        for seat in range(self.n_players):
            bid = self.bids[seat]
            mark = ">" if seat == self.seat_to_act else " "
            hand = " ".join([names.card(c) for c in self.hands[seat]]) or "-"
            bid = "-" if bid is None else str(bid)
            lines.append(f"{mark} seat {seat}  bid {bid:>2}  won {self.tricks_won[seat]:>2}  {hand}")
        for number, trick in enumerate(self.tricks, start=1):
            played = "  ".join([f"{seat}:{names.card(c)}" for seat, c in trick])
            lines.append(f"  trick {number:>2}  {played}")
        if self.is_over:
            lines.append("  scores  " + " ".join([str(score) for score in self.scores()]))
        return "\n".join(lines)

    def __repr__(self):
        return (f"<Round {self.n_players} players x {self.n_cards} cards, trump {names.suit(self.trump)}, "
                f"bids {self.bids}, tricks {self.tricks_won}>")


def _check_deal(n_players, n_cards, dealer, trump):
    if not 3 <= n_players <= 8:
        raise InvalidDeal(f"expected 3 to 8 players, got {n_players}")
    if not 1 <= n_cards <= MAX_HAND:
        raise InvalidDeal(f"expected 1 to 13 cards per seat, got {n_cards}")
    if n_players * n_cards > DECK:
        raise InvalidDeal(f"expected at most 52 cards in all, got {n_players} players x {n_cards} cards = "
                          f"{n_players * n_cards}")
    if not 0 <= dealer < n_players:
        raise InvalidDeal(f"expected dealer in 0..{n_players - 1}, got {dealer}")
    if trump is not None and not 0 <= trump <= 3:
        raise InvalidDeal(f"expected trump 0..3 or None, got {trump}")
