# SPDX-License-Identifier: Apache-2.0
"""The positions that engine and search are timed on: seeded deals of one shape, and what random play makes of them."""

from random import Random
from typing import Final

from mcts_ext.rules import Round

PLAYERS: Final = 4
CARDS: Final = 5
N_MOVES: Final = PLAYERS * (1 + CARDS)
TRUMPS: Final = (0, 1, 2, 3, None)


def deals(n: int, *, seed: int) -> list[Round]:
    """n rounds just dealt; dealers and trumps take turns."""
    return [Round.deal(PLAYERS, CARDS, i % PLAYERS, TRUMPS[i % len(TRUMPS)], seed + i) for i in range(n)]


def mid_round(n: int, *, seed: int) -> list[Round]:
    """n rounds in their second to fourth trick, played at random."""
    random = Random(seed)
    tables = deals(n, seed=seed)
    for table in tables:
        for _ in range(PLAYERS + random.randrange(PLAYERS, 4 * PLAYERS)):
            table.apply(random.choice(table.legal_actions()))
    return tables
