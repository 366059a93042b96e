# SPDX-License-Identifier: Apache-2.0
"""Positions on which engine and search are timed: seeded deals of one size, and their continuation by random play."""

from random import Random
from typing import Final

from mcts_ext.rules import Round

PLAYERS: Final = 4
CARDS: Final = 5
N_MOVES: Final = PLAYERS * (1 + CARDS)
TRUMPS: Final = (0, 1, 2, 3, None)
SEED: Final = 20


def deals(n: int, *, seed: int) -> list[Round]:
    """Return `n` fresh deals; dealers and trumps rotate."""
    return [Round.deal(PLAYERS, CARDS, i % PLAYERS, TRUMPS[i % len(TRUMPS)], seed + i) for i in range(n)]


def mid_round(n: int, *, seed: int) -> list[Round]:
    """Return `n` rounds in their second to fourth trick, after random play."""
    random = Random(seed)
    rounds = deals(n, seed=seed)
    for one in rounds:
        for _ in range(PLAYERS + random.randrange(PLAYERS, 4 * PLAYERS)):
            one.apply(random.choice(one.legal_actions()))
    return rounds
