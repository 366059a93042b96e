# SPDX-License-Identifier: Apache-2.0
"""Positions to compare and calibrate with. Axes: `n` rows, `F` = 96 bytes."""

from random import Random

import numpy as np
from numpy.typing import NDArray

from mcts_ext.contract import MAX_HAND, N_CARDS_IN_DECK, N_SEATS, OBSERVATION_BYTES
from mcts_ext.observe import observation
from mcts_ext.rules import Round


def sample_rows(n: int, *, seed: int) -> NDArray[np.uint8]:
    """`[n, F]` real positions: every third on average of rounds of all sizes, some inside a game, played at random."""
    random = Random(seed)
    rows: list[bytes] = []
    while len(rows) < n:
        table = _deal(random)
        while not table.is_over:
            if random.randrange(3) == 0:
                rows.append(observation(table))
            table.apply(random.choice(table.legal_actions()))
    return np.frombuffer(b"".join(rows[:n]), np.uint8).reshape(n, OBSERVATION_BYTES).copy()


def _deal(random: Random) -> Round:
    n_players = random.randint(3, N_SEATS)
    n_cards = random.randint(1, min(MAX_HAND, N_CARDS_IN_DECK // n_players))
    deck = random.sample(range(N_CARDS_IN_DECK), n_players * n_cards)
    in_game = random.randrange(2) == 0
    return Round(
        [deck[seat::n_players] for seat in range(n_players)],
        dealer=random.randrange(n_players),
        trump=random.choice((0, 1, 2, 3, None)),
        totals=[random.randrange(400) for _ in range(n_players)] if in_game else None,
        game_round=random.randrange(12) if in_game else 0,
        start_cards=n_cards if in_game else 0,
    )
