# SPDX-License-Identifier: Apache-2.0
"""What is left to play of a run, and which worker plays it.

Independent rounds are handed out by their numbers. Of whole games each belongs to one worker, and one that was broken
off goes on after the last of its rounds that stands in a shard, with the points that stand there.
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
from mcts_ext.deals import ROUNDS_APART, games_for
from mcts_ext.decode import decode
from mcts_ext.game import hand_sizes


@dataclass(frozen=True)
class Share:
    """`n` rounds for a pool to begin with."""

    rounds: NDArray[np.int64]
    """`[n]` their numbers."""
    totals: NDArray[np.uint16]
    """`[n, S]` the points before each by seat; all 0 unless games go on."""

    @classmethod
    def left(cls, folder: Path, deal: DealConfig, *, seed: int, rounds: int, index: int, workers: int) -> Self:
        """The share of worker `index` of `workers`: what the shards in `folder` do not hold of `rounds` rounds.

        What cannot be read as a shard holds nothing that anybody can learn from, so its rounds are played again.

        Raises:
            ShardUnavailable: reading failed; playing on might record rounds a second time.
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
        """The first round that is missing of each game, unless it is finished."""
        begun = {game: _Standing(game * ROUNDS_APART, (0,) * N_SEATS, is_over=False) for game in games}
        for records in readable(folder, ["observation", "value", "round", "seat"]):
            for row in _last_rows(records["round"]):
                after = _Standing.after(records, row)
                game = (after.next_round - 1) // ROUNDS_APART
                if game in begun and after.next_round > begun[game].next_round:
                    begun[game] = after
        left = [standing for standing in begun.values() if not standing.is_over]
        return cls(
            np.array([standing.next_round for standing in left], np.int64),
            np.array([standing.totals for standing in left], np.uint16).reshape(len(left), N_SEATS),
        )


@dataclass(frozen=True)
class _Standing:
    """A game between two rounds."""

    next_round: int
    totals: tuple[int, ...]
    """By seat."""
    is_over: bool

    @classmethod
    def after(cls, records: Mapping[str, NDArray[Any]], row: int) -> Self:
        """The game after the round of one record."""
        known = decode(records["observation"][row].tobytes())
        gained = np.rint(records["value"][row] * (10 + known.n_cards)).astype(int)
        totals = [0] * N_SEATS
        for relative, total in enumerate(known.totals):
            totals[(int(records["seat"][row]) + relative) % known.n_players] = total + int(gained[relative])
        n_rounds = len(hand_sizes(known.n_players, known.start_cards))
        return cls(int(records["round"][row]) + 1, tuple(totals), is_over=known.game_round + 1 == n_rounds)


def _last_rows(rounds: NDArray[np.int64]) -> list[int]:
    """A row of the last round of every game: its records stand together, rounds in the order they ended."""
    games = rounds[::-1] // ROUNDS_APART
    found: list[int] = (len(games) - 1 - np.unique(games, return_index=True)[1]).tolist()
    return found
