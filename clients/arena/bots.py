# SPDX-License-Identifier: Apache-2.0
"""Players without a network or a search: `RandomBot`, and `HeuristicBot`, the fixed yardstick.

A bot is asked for one action at a time and sees of the table only what the seat to act may know: its own hand, the
bids, the cards played. Ratings of months are measured against `HeuristicBot`: change a rule or a constant of it and
they are no longer comparable, so give a better one another name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from mcts_ext.contract import FIRST_CARD_ACTION, N_CARDS_IN_DECK
from mcts_ext.rules import Round

_SIDE_CARD_PLAYED: Final = 0.85
"""How often a high card of a side suit is played while that suit is led, rather than thrown away."""
_TRUMP_RUFFS: Final = 0.25
"""How often a trump that higher ones would beat takes a trick that was led in another suit."""
_UNWILLING: Final = 0.5
"""How often a seat that needs no more tricks beats a card that it could beat."""

_DEMAND: Final = 0.5
"""How much less a card counts, as a share, for every N tricks that the bids before ask for above their share of N."""


class Bot(Protocol):
    """Whoever chooses an action from what a seat knows."""

    def choose(self, table: Round, *, seed: int) -> int:
        """A legal action of the seat to act, a function of what it knows and of `seed`, 0 <= seed < 2 ** 64.

        `table` stays as it is; the other seats' hands must not matter.
        """
        ...


class RandomBot:
    """Every legal action alike."""

    def choose(self, table: Round, *, seed: int) -> int:
        """See `Bot`."""
        return Random(seed).choice(table.legal_actions())


class HeuristicBot:
    """Counts cards, estimates which of its own take a trick, and goes for exactly its bid. Deterministic.

    The estimate, for one card and the cards that nobody has shown yet:
        - A card holds against an opponent if that one has no higher card of its suit, and is not void there with a
          trump in hand. Both chances follow from the numbers of unseen cards and of the opponent's cards, as if each
          were drawn apart from the others; a void that was shown is known.
        - A later trick: a side suit's card must hold against all opponents, and be played when its suit is led
          (`_SIDE_CARD_PLAYED`). A trump counts as that, without the suit, and may also ruff (`_TRUMP_RUFFS`).
        - With one card each there is nothing to ruff by choice: off the lead, a side suit's card counts only as often
          as its suit is led.
        - The trick on the table: a card that beats what lies there must hold against those still to play. Who needs no
          more tricks beats it only every other time (`_UNWILLING`).

    Bidding: the number of tricks is taken for a sum of independent cards (Poisson binomial). Each card counts for
    more the fewer tricks the bids before ask for, compared with their share (`_DEMAND`), and the bid b with the largest
    (10 + b) P(b tricks) is made, of those that the hook leaves.

    Playing: the card with the largest chance of exactly the bid: P(it wins now) P(the rest takes one fewer than
    needed) + P(it loses) P(the rest takes as many as needed). While tricks are needed this wins with the cheapest card
    that is likely to hold, because the dearer ones then stay; once none is needed it gets rid of the highest card that
    loses. Of equals the lower is played while tricks are needed, the higher afterwards. With the bid lost it takes what
    it can, to spoil the others' bids.
    """

    def choose(self, table: Round, *, seed: int) -> int:
        """See `Bot`; `seed` has no effect."""
        view = _View(table)
        return _bid(table, view) if table.is_bidding else FIRST_CARD_ACTION + _card(table, view)


@dataclass
class _View:
    """What the seat to act knows, counted."""

    table: Round
    seat: int = field(init=False)
    hand: list[int] = field(init=False)
    trump: int | None = field(init=False)
    higher: list[int] = field(init=False)
    """By card: unseen cards of its suit above it."""
    unseen: list[int] = field(init=False)
    """By suit: cards that this seat has not seen."""
    n_unseen: int = field(init=False)
    sizes: list[int] = field(init=False)
    """By seat: cards in hand."""
    voids: list[set[int]] = field(init=False)
    on_table: list[tuple[int, int]] = field(init=False)
    """(seat, card) of the trick in progress."""

    def __post_init__(self) -> None:
        table = self.table
        seat = table.seat_to_act
        assert seat is not None
        self.seat, self.trump = seat, table.trump
        self.hand = table.hands[seat]
        tricks = [] if table.is_bidding else table.tricks
        self.on_table = tricks[-1] if tricks and len(tricks[-1]) < table.n_players else []
        seen = {*self.hand, *(card for trick in tricks for _, card in trick)}
        self.higher, self.unseen = [0] * N_CARDS_IN_DECK, [0, 0, 0, 0]
        for card in reversed(range(N_CARDS_IN_DECK)):
            suit = card // 13
            self.higher[card] = self.unseen[suit]
            self.unseen[suit] += card not in seen
        self.n_unseen = sum(self.unseen)
        played = {other for other, _ in self.on_table}
        self.sizes = [len(self.hand) - (other in played) for other in range(table.n_players)]
        self.voids = [set(found) for found in table.voids]

    def has_none(self, seat: int, n_cards: int) -> float:
        """Chance that a seat holds none of `n_cards` unseen ones."""
        return (1 - n_cards / self.n_unseen) ** self.sizes[seat] if n_cards else 1.0

    def is_void(self, seat: int, suit: int) -> float:
        """Chance that a seat holds nothing of a suit."""
        return 1.0 if suit in self.voids[seat] else self.has_none(seat, self.unseen[suit])

    def cannot_beat(self, seat: int, card: int, led: int) -> float:
        """Chance that a seat has nothing to beat `card` with in a trick of the suit `led`."""
        suit = card // 13
        no_higher = 1.0 if suit in self.voids[seat] else self.has_none(seat, self.higher[card])
        if suit == self.trump:
            return no_higher if led == suit else 1 - self.is_void(seat, led) * (1 - no_higher)
        if self.trump is None:
            return no_higher
        return no_higher * (1 - self.is_void(seat, led) * (1 - self.is_void(seat, self.trump)))

    def later(self, card: int) -> float:
        """Chance that a card takes a later trick."""
        suit, others = card // 13, [seat for seat in range(len(self.sizes)) if seat != self.seat]
        holds = 1.0
        for seat in others:
            holds *= self.cannot_beat(seat, card, suit)
        if self.table.n_cards == 1:
            leads = (self.table.dealer + 1) % len(self.sizes) == self.seat
            return holds if leads or suit == self.trump else holds * self.unseen[suit] / self.n_unseen
        if suit == self.trump:
            return holds + (1 - holds) * _TRUMP_RUFFS
        return holds * _SIDE_CARD_PLAYED

    def now(self, card: int) -> float:
        """Chance that a card takes the trick in progress, or the one that it leads."""
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
        """Whether `card` is above `other` in a trick of the suit `led`."""
        return self._rank(card, led) > self._rank(other, led)

    def _rank(self, card: int, led: int) -> int:
        suit, rank = divmod(card, 13)
        return rank + 26 if suit == self.trump else rank + 13 if suit == led else rank - 13


def _bid(table: Round, view: _View) -> int:
    """The legal bid with the largest expected score."""
    others = [bid for bid in table.bids if bid is not None]
    share = len(others) * table.n_cards / table.n_players
    demand = (sum(others) - share) / table.n_cards  # above 0 where they ask for more than their share
    chances = [view.later(card) for card in view.hand]
    tricks = _distribution([min(max(p * (1 - _DEMAND * demand), 0.0), 1.0) for p in chances])
    return max(table.legal_actions(), key=lambda bid: (10 + bid) * tricks[bid])


def _card(table: Round, view: _View) -> int:
    """The legal card with the best chance of exactly the bid."""
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
    """Poisson binomial: the chance of each number of successes, 0..n, in n independent trials."""
    found = [1.0]
    for p in chances:
        found = [a * (1 - p) + b * p for a, b in zip([*found, 0.0], [0.0, *found], strict=True)]
    return found


BOTS: Final[Mapping[str, Callable[[], Bot]]] = {"random": RandomBot, "heuristic": HeuristicBot}
"""By the word that names each in a match; how words are read, and the help, derive from here."""
