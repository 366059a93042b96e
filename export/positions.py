# SPDX-License-Identifier: Apache-2.0
"""Positions to compare and calibrate with. Axes: `n` rows, `F` = 96 bytes."""

from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clients.records import read_observations
from export.errors import InvalidPositions
from mcts_ext.contract import MAX_HAND, N_CARDS_IN_DECK, N_SEATS, OBSERVATION_BYTES
from mcts_ext.observe import observation
from mcts_ext.rules import Round

DATA: Final = Path("data")
"""Where `blobzero selfplay` leaves its runs."""
ENOUGH: Final = 4
"""How many times as many positions are read as are drawn: those of one shard are of one time."""
N_PARITY_ROWS: Final = 4096
N_CALIBRATION_ROWS: Final = 1024
SEED: Final = 20


class Positions(NamedTuple):
    """What an export is measured by."""

    parity: NDArray[np.uint8]
    """`[n, F]` to compare answers on."""
    calibration: NDArray[np.uint8]
    """`[n, F]` others, to fix the ranges of int8."""
    source: str
    """Where they come from, in words."""


def export_positions(records: Path | None) -> Positions:
    """The positions for an export, as many as `N_PARITY_ROWS` and `N_CALIBRATION_ROWS` say; see `recorded_rows`."""
    rows, source = recorded_rows(records, N_PARITY_ROWS + N_CALIBRATION_ROWS, seed=SEED)
    return Positions(rows[:N_PARITY_ROWS], rows[N_PARITY_ROWS:], source)


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


def recorded_rows(records: Path | None, n: int, *, seed: int) -> tuple[NDArray[np.uint8], str]:
    """`[n, F]` different positions out of shards, and where they come from in words.

    Args:
        records: a run's folder, or any above it; none for the newest run under `data/`.
        n: where the shards have fewer, positions played at random make up for the rest.
        seed: which are drawn.

    Raises:
        ShardError: a shard that can't be read. InvalidPositions: `records` has no shards.
    """
    folder = DATA if records is None else records
    shards = sorted(folder.glob("**/shards/*.parquet"), key=lambda path: path.stat().st_mtime, reverse=True)
    if records is None and shards:
        shards = [path for path in shards if path.parent == shards[0].parent]
    if records is not None and not shards:
        raise InvalidPositions(
            f"expected shards of records under {records}, got none; play some (blobzero selfplay), or name no folder"
        )
    drawn = np.zeros((0, OBSERVATION_BYTES), np.uint8)
    for path in shards:
        drawn = np.unique(np.concatenate([drawn, read_observations(path)]), axis=0)
        if len(drawn) >= ENOUGH * n:
            break
    drawn = np.random.default_rng(seed).permutation(drawn)[:n]
    n_played = n - len(drawn)
    words = [f"{len(drawn):,} of {shards[0].parent.parent}"] if len(drawn) else []
    words += [f"{n_played:,} played at random"] if n_played else []
    rows = np.concatenate([drawn, sample_rows(n_played, seed=seed)])
    return np.random.default_rng(seed).permutation(rows), ", ".join(words)
