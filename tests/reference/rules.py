# SPDX-License-Identifier: Apache-2.0
"""The rules of Blob again, slow and obvious, straight from docs/rules.md: lists and loops, no bits."""

from dataclasses import dataclass, field


def suit(card: int) -> int:
    return card // 13


def rank(card: int) -> int:
    return card % 13


@dataclass
class SlowRound:
    """One deal; actions are numbered as in mcts_ext/contract.py."""

    hands: list[list[int]]
    dealer: int
    trump: int | None
    bids: dict[int, int] = field(default_factory=dict)
    tricks: list[list[tuple[int, int]]] = field(default_factory=list)
    """Finished tricks, (seat, card) in order of play."""
    table: list[tuple[int, int]] = field(default_factory=list)
    """The trick in progress."""
    voids: set[tuple[int, int]] = field(default_factory=set)
    """(seat, suit) shown."""

    @property
    def n_players(self) -> int:
        return len(self.hands)

    def __post_init__(self) -> None:
        self.n_cards = len(self.hands[0])

    def is_over(self) -> bool:
        return not any(self.hands) and not self.table

    def winner(self, trick: list[tuple[int, int]]) -> int:
        """Highest trump, else highest card of the led suit."""
        trumps = [(rank(card), seat) for seat, card in trick if suit(card) == self.trump]
        led = [(rank(card), seat) for seat, card in trick if suit(card) == suit(trick[0][1])]
        return max(trumps or led)[1]

    def seat_to_act(self) -> int | None:
        if self.is_over():
            return None
        if len(self.bids) < self.n_players:
            return (self.dealer + 1 + len(self.bids)) % self.n_players
        if self.table:
            return (self.table[-1][0] + 1) % self.n_players
        if self.tricks:
            return self.winner(self.tricks[-1])
        return (self.dealer + 1) % self.n_players

    def legal(self) -> list[int]:
        seat = self.seat_to_act()
        if seat is None:
            return []
        if len(self.bids) < self.n_players:
            bids = list(range(self.n_cards + 1))
            if seat == self.dealer:
                bids = [bid for bid in bids if bid + sum(self.bids.values()) != self.n_cards]
            return bids
        hand = sorted(self.hands[seat])
        if self.table:
            following = [card for card in hand if suit(card) == suit(self.table[0][1])]
            hand = following or hand
        return [14 + card for card in hand]

    def apply(self, action: int) -> None:
        seat = self.seat_to_act()
        assert seat is not None
        assert action in self.legal()
        if len(self.bids) < self.n_players:
            self.bids[seat] = action
            return
        card = action - 14
        if self.table and suit(card) != suit(self.table[0][1]):
            self.voids.add((seat, suit(self.table[0][1])))
        self.hands[seat].remove(card)
        self.table.append((seat, card))
        if len(self.table) == self.n_players:
            self.tricks.append(self.table)
            self.table = []

    def tricks_won(self) -> list[int]:
        return [sum(self.winner(trick) == seat for trick in self.tricks) for seat in range(self.n_players)]

    def scores(self) -> list[int]:
        won = self.tricks_won()
        return [10 + self.bids[seat] if won[seat] == self.bids[seat] else 0 for seat in range(self.n_players)]
