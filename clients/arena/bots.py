# SPDX-License-Identifier: Apache-2.0
"""Players without network: `RandomBot`, `HeuristicBot`, the fixed baseline, and `PIMCBot`, a classical search.

A bot chooses one action at a time from the information set of the seat to act. Long-term ratings are measured against
`HeuristicBot` and `PIMCBot`: changing their rules or constants makes them incomparable, so add an improved bot under
another name.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Final, Protocol

from mcts_ext import pimc
from mcts_ext.contract import FIRST_CARD_ACTION, N_CARDS_IN_DECK
from mcts_ext.errors import InvalidConfig
from mcts_ext.rules import Round

_SIDE_CARD_PLAYED: Final = 0.85
"""Probability that a high card of a side suit is played when that suit is led, rather than discarded."""
_TRUMP_RUFFS: Final = 0.25
"""Probability that a beatable trump ruffs a trick led in another suit."""
_UNWILLING: Final = 0.5
"""Probability that a seat that needs no more tricks beats a card that it could beat."""

_DEMAND: Final = 0.5
"""Relative devaluation of a card per N tricks that the earlier bids exceed their share of N."""


class Bot(Protocol):
    """Chooses actions from a seat's information set."""

    def choose(self, table: Round, *, seed: int) -> int:
        """Return a legal action, a function of the information set and `seed`, 0 <= seed < 2 ** 64.

        `table` must not be changed, and the other seats' hands must not matter.
        """
        ...


class RandomBot:
    """Chooses uniformly from the legal actions."""

    def choose(self, table: Round, *, seed: int) -> int:
        """See `Bot`."""
        return Random(seed).choice(table.legal_actions())


class HeuristicBot:
    """Estimates which cards take a trick and aims to make its bid exactly. Deterministic.

    Probability that a card takes a trick, from the unseen cards:
        - A card holds against an opponent that has no higher card of its suit, and is not void there with a trump in
          hand. Both probabilities follow from the numbers of unseen cards and of the opponent's cards, treating draws
          as independent; a shown void is certain.
        - In a later trick, a card of a side suit must hold against all opponents and be played when its suit is led
          (`_SIDE_CARD_PLAYED`). A trump must hold, or may ruff (`_TRUMP_RUFFS`).
        - With one card each there are no voluntary ruffs: off the lead, a card of a side suit counts in proportion to
          the probability that its suit is led.
        - In the current trick, a card that beats the table must hold against the seats still to play. A seat that
          needs no more tricks beats it only half of the time (`_UNWILLING`).

    Bidding: the number of tricks is the sum of independent cards (Poisson binomial). A card is worth more, the fewer
    tricks the earlier bids claim relative to their share (`_DEMAND`). The bid b with the largest (10 + b) P(b tricks)
    is made, among the legal ones.

    Playing: the card with the largest probability of making the bid exactly: P(it wins now) P(the rest takes one fewer
    than needed) + P(it loses) P(the rest takes as many as needed). While tricks are needed, this wins with the cheapest
    card that is likely to hold, which keeps the stronger ones; afterwards it discards the highest losing card. Ties go
    to the lower card while tricks are needed, to the higher one afterwards. With the bid lost, it takes what it can, to
    spoil the other bids.
    """

    def choose(self, table: Round, *, seed: int) -> int:
        """See `Bot`; `seed` has no effect."""
        view = _SeatView(table)
        return _bid(table, view) if table.is_bidding else FIRST_CARD_ACTION + _card(table, view)


class PIMCBot:
    """Perfect-information Monte Carlo: plays the action with the best mean score over deals drawn uniformly.

    mcts_ext/pimc.pyx says how a deal is played out, docs/experiments/pimc.md how strong it is.

    Args:
        worlds: number of deals per decision.
    """

    def __init__(self, worlds: int) -> None:
        if not 1 <= worlds <= 10_000:
            raise InvalidConfig(f"expected pimc:WORLDS in 1..10000, got {worlds}")
        self._worlds = worlds

    def choose(self, table: Round, *, seed: int) -> int:
        """See `Bot`."""
        return pimc.choose(table, worlds=self._worlds, seed=seed)


class _SeatView:
    """Card counts in the information set of the seat to act."""

    def __init__(self, table: Round) -> None:
        seat = table.seat_to_act
        assert seat is not None
        self.table, self.seat, self.trump = table, seat, table.trump
        self.hand = table.hands[seat]
        tricks = [] if table.is_bidding else table.tricks
        self.on_table = tricks[-1] if tricks and len(tricks[-1]) < table.n_players else []
        """(seat, card) of the trick in progress."""
        seen = {*self.hand, *(card for trick in tricks for _, card in trick)}
        self.higher = [0] * N_CARDS_IN_DECK
        """Number of unseen higher cards of the same suit, by card."""
        self.unseen = [0, 0, 0, 0]
        """Number of unseen cards, by suit."""
        for card in reversed(range(N_CARDS_IN_DECK)):
            suit = card // 13
            self.higher[card] = self.unseen[suit]
            self.unseen[suit] += card not in seen
        self.n_unseen = sum(self.unseen)
        played = {other for other, _ in self.on_table}
        self.sizes = [len(self.hand) - (other in played) for other in range(table.n_players)]
        """Number of cards in hand, by seat."""
        self.voids = [set(suits) for suits in table.voids]

    def has_none(self, seat: int, n_cards: int) -> float:
        """Return the probability that a seat holds none of `n_cards` unseen cards."""
        return (1 - n_cards / self.n_unseen) ** self.sizes[seat] if n_cards else 1.0

    def is_void(self, seat: int, suit: int) -> float:
        """Return the probability that a seat is void in a suit."""
        return 1.0 if suit in self.voids[seat] else self.has_none(seat, self.unseen[suit])

    def cannot_beat(self, seat: int, card: int, led: int) -> float:
        """Return the probability that a seat cannot beat `card` in a trick of the suit `led`."""
        suit = card // 13
        no_higher = 1.0 if suit in self.voids[seat] else self.has_none(seat, self.higher[card])
        if suit == self.trump:
            return no_higher if led == suit else 1 - self.is_void(seat, led) * (1 - no_higher)
        if self.trump is None:
            return no_higher
        return no_higher * (1 - self.is_void(seat, led) * (1 - self.is_void(seat, self.trump)))

    def later(self, card: int) -> float:
        """Return the probability that a card takes a later trick."""
        suit, opponents = card // 13, [seat for seat in range(len(self.sizes)) if seat != self.seat]
        holds = 1.0
        for seat in opponents:
            holds *= self.cannot_beat(seat, card, suit)
        if self.table.n_cards == 1:
            leads = (self.table.dealer + 1) % len(self.sizes) == self.seat
            return holds if leads or suit == self.trump else holds * self.unseen[suit] / self.n_unseen
        if suit == self.trump:
            return holds + (1 - holds) * _TRUMP_RUFFS
        return holds * _SIDE_CARD_PLAYED

    def now(self, card: int) -> float:
        """Return the probability that a card takes the current trick."""
        led = self.on_table[0][1] // 13 if self.on_table else card // 13
        if any(not self.beats(card, other, led) for _, other in self.on_table):
            return 0.0
        played = {self.seat, *(seat for seat, _ in self.on_table)}
        holds = 1.0
        for seat in range(len(self.sizes)):
            if seat not in played:
                bid = self.table.bids[seat]
                needs = bid is not None and bid > self.table.tricks_won[seat]
                holds *= 1 - (1 - self.cannot_beat(seat, card, led)) * (1.0 if needs else _UNWILLING)
        return holds

    def beats(self, card: int, other: int, led: int) -> bool:
        """Return whether `card` beats `other` in a trick of the suit `led`."""
        return self._rank(card, led) > self._rank(other, led)

    def _rank(self, card: int, led: int) -> int:
        suit, rank = divmod(card, 13)
        return rank + 26 if suit == self.trump else rank + 13 if suit == led else rank - 13


def _bid(table: Round, view: _SeatView) -> int:
    """Return the legal bid with the largest expected score."""
    earlier_bids = [bid for bid in table.bids if bid is not None]
    share = len(earlier_bids) * table.n_cards / table.n_players
    demand = (sum(earlier_bids) - share) / table.n_cards  # above 0 if they claim more than their share
    chances = [view.later(card) for card in view.hand]
    tricks = _distribution([min(max(p * (1 - _DEMAND * demand), 0.0), 1.0) for p in chances])
    return max(table.legal_actions(), key=lambda bid: (10 + bid) * tricks[bid])


def _card(table: Round, view: _SeatView) -> int:
    """Return the legal card with the largest probability of making the bid exactly."""
    bid = table.bids[view.seat]
    assert bid is not None
    needed = bid - table.tricks_won[view.seat]
    legal = [action - FIRST_CARD_ACTION for action in table.legal_actions()]
    if len(legal) == 1:
        return legal[0]
    is_lost = not 0 <= needed <= len(view.hand)
    later = {card: view.later(card) for card in view.hand}

    def worth(card: int) -> tuple[float, int]:
        wins = view.now(card)
        if is_lost:
            return wins, -(card % 13)
        rest = _distribution([p for other, p in later.items() if other != card])
        one_fewer = rest[needed - 1] if needed > 0 else 0.0
        as_many = rest[needed] if needed < len(rest) else 0.0
        return wins * one_fewer + (1 - wins) * as_many, -(card % 13) if needed > 0 else card % 13

    return max(legal, key=worth)


def _distribution(chances: list[float]) -> list[float]:
    """Return the Poisson binomial distribution: the probability of 0..n successes in n independent trials."""
    pmf = [1.0]
    for p in chances:
        pmf = [a * (1 - p) + b * p for a, b in zip([*pmf, 0.0], [0.0, *pmf], strict=True)]
    return pmf


BOTS: Final[Mapping[str, Callable[[], Bot]]] = {"random": RandomBot, "heuristic": HeuristicBot}
"""By the word that names each in a match; how words are read, and the help, derive from here."""
