# SPDX-License-Identifier: Apache-2.0
"""Distribution of a run's remaining rounds to its workers.

Independent rounds are distributed by number. A whole game belongs to one worker; an interrupted game resumes after its
last recorded round, with the totals recorded there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from clients.selfplay.records import finished_rounds, readable
from mcts_ext.config import DealConfig
from mcts_ext.contract import N_SEATS
from mcts_ext.deals import ROUNDS_APART, games_for, hand_sizes
from mcts_ext.decode import decode


@dataclass(frozen=True)
class Share:
    """Remaining rounds of one worker."""

    rounds: NDArray[np.int64]
    """`[n]` round numbers."""
    totals: NDArray[np.uint16]
    """`[n, S]` game points before each round by seat; 0 unless a game resumes."""

    @classmethod
    def left(cls, folder: Path, deal: DealConfig, *, seed: int, rounds: int, index: int, workers: int) -> Self:
        """Return the share of worker `index` of `workers` in those of `rounds` rounds that are not in shards yet.

        The rounds of invalid shards are played again.

        Raises:
            ShardUnavailable: if a shard could not be read; continuing might record rounds twice.
        """
        if deal.unit == "game":
            n_games, _ = games_for(rounds, seed=seed, deal=deal)
            return cls._of_games(folder, range(index, n_games, workers))
        done = finished_rounds(folder)
        mine = np.arange(index, rounds, workers, dtype=np.int64)
        mine = mine[~np.isin(mine, np.fromiter(done, dtype=np.int64, count=len(done)))]
        return cls(mine, np.zeros((len(mine), N_SEATS), np.uint16))

    @classmethod
    def _of_games(cls, folder: Path, games: range) -> Self:
        """Return the first missing round of each unfinished game."""
        standings = {game: _Standing(game * ROUNDS_APART, (0,) * N_SEATS, is_over=False) for game in games}
        for records in readable(folder, ["observation", "value", "round", "seat"]):
            for row in _last_rows(records["round"]):
                after = _Standing.after(records, row)
                game = (after.next_round - 1) // ROUNDS_APART
                if game in standings and after.next_round > standings[game].next_round:
                    standings[game] = after
        left = [standing for standing in standings.values() if not standing.is_over]
        return cls(
            np.array([standing.next_round for standing in left], np.int64),
            np.array([standing.totals for standing in left], np.uint16).reshape(len(left), N_SEATS),
        )


@dataclass(frozen=True)
class _Standing:
    """State of a game between two rounds."""

    next_round: int
    totals: tuple[int, ...]
    """Game points by seat."""
    is_over: bool

    @classmethod
    def after(cls, records: Mapping[str, NDArray[Any]], row: int) -> Self:
        """Return the state after the round of one record."""
        known = decode(records["observation"][row].tobytes())
        gained = np.rint(records["value"][row] * (10 + known.n_cards)).astype(int)
        totals = [0] * N_SEATS
        for relative, total in enumerate(known.totals):
            totals[(int(records["seat"][row]) + relative) % known.n_players] = total + int(gained[relative])
        n_rounds = len(hand_sizes(known.n_players, known.start_cards))
        return cls(int(records["round"][row]) + 1, tuple(totals), is_over=known.game_round + 1 == n_rounds)


def _last_rows(rounds: NDArray[np.int64]) -> list[int]:
    """Return a row of the last round of every game; the rounds of a game are in order within a shard."""
    games = rounds[::-1] // ROUNDS_APART
    rows: list[int] = (len(games) - 1 - np.unique(games, return_index=True)[1]).tolist()
    return rows
