# SPDX-License-Identifier: Apache-2.0
"""Positions for tests: rounds dealt and played at random, and what one seat knows of them, read off the play alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from random import Random

from mcts_ext.rules import Round

SHAPES = [(p, n) for p in range(3, 9) for n in range(1, 14) if p * n <= 52]
"""Every (players, cards) that the deck allows."""


def deal(random: Random, n_players: int, n_cards: int) -> Round:
    """A random deal, dealer and trump; every third one stands in a game with totals."""
    hands = random.sample(range(52), n_players * n_cards)
    in_game = random.randrange(3) == 0
    return Round(
        [hands[seat::n_players] for seat in range(n_players)],
        dealer=random.randrange(n_players),
        trump=random.choice([0, 1, 2, 3, None]),
        totals=[random.randrange(400) for _ in range(n_players)] if in_game else None,
        game_round=random.randrange(30) if in_game else 0,
        start_cards=random.randrange(n_cards, 14) if in_game else 0,
    )


def choose(table: Round, random: Random) -> int:
    """A legal action; cards mostly of the shortest suit held, so that voids come early and many."""
    legal = table.legal_actions()
    if table.is_bidding or random.random() < 0.3:
        return random.choice(legal)
    assert table.seat_to_act is not None
    suits = [card // 13 for card in table.hands[table.seat_to_act]]
    return min(legal, key=lambda action: (suits.count((action - 14) // 13), random.random()))


def playout(table: Round, random: Random) -> Iterator[Round]:
    """Play on to the end, showing every position that still has a seat to act; the next move changes it."""
    while not table.is_over:
        yield table
        table.apply(choose(table, random))


def position(random: Random, n_players: int, n_cards: int, *, n_moves: int | None = None) -> Round:
    """A position after `n_moves` moves (a random number by default), not at the end of the round."""
    table = deal(random, n_players, n_cards)
    for _ in range(random.randrange(n_players * (n_cards + 1)) if n_moves is None else n_moves):
        table.apply(choose(table, random))
    return table


@dataclass(frozen=True)
class Unseen:
    """What `seat` knows of the cards it cannot see."""

    cards: frozenset[int]
    """Neither its own nor played: in other hands or undealt."""
    held: dict[int, int]
    """Cards held by each other seat."""
    voids: dict[int, frozenset[int]]
    """Suits each other seat cannot hold."""

    def allowed(self, seat: int) -> list[int]:
        """The unseen cards that another seat may hold."""
        return sorted(card for card in self.cards if card // 13 not in self.voids[seat])

    @property
    def n_bound(self) -> int:
        """Seats with cards left whose voids rule out some unseen card."""
        return sum(len(self.allowed(seat)) < len(self.cards) for seat, n in self.held.items() if n)


def unseen(table: Round, seat: int) -> Unseen:
    """Read from the tricks played and the seat's own hand; the other hands are not looked at."""
    others = [other for other in range(table.n_players) if other != seat]
    played = [(who, card) for trick in table.tricks for who, card in trick]
    voids: dict[int, set[int]] = {other: set() for other in range(table.n_players)}
    for trick in table.tricks:
        led = trick[0][1] // 13
        for who, card in trick:
            if card // 13 != led:
                voids[who].add(led)
    return Unseen(
        cards=frozenset(range(52)) - set(table.hands[seat]) - {card for _, card in played},
        held={other: table.n_cards - sum(who == other for who, _ in played) for other in others},
        voids={other: frozenset(voids[other]) for other in others},
    )


def consistent_deals(known: Unseen, limit: int) -> list[tuple[tuple[int, ...], ...]] | None:
    """Every deal of the unseen cards, one sorted hand per other seat; None when there are more than `limit`."""
    deals: list[tuple[tuple[int, ...], ...]] = [()]
    for seat in known.held:
        grown = []
        for dealt in deals:
            taken = {card for hand in dealt for card in hand}
            free = [card for card in known.allowed(seat) if card not in taken]
            for hand in combinations(free, known.held[seat]):
                grown.append((*dealt, hand))
                if len(grown) > 40 * limit:
                    return None
        deals = grown
    return deals if len(deals) <= limit else None
