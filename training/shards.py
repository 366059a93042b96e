# SPDX-License-Identifier: Apache-2.0
"""The positions of a shard, checked before anything learns from them.

A shard is refused whole, with its name and one reason: not readable, another observation version, numbers that no
search leaves behind. One bad row says that something went wrong, and nothing about which other rows it spared.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clients.records import SCHEMA, ShardError, read_provenance, read_shards
from mcts_ext.contract import (
    AT_CARDS,
    AT_N_CARDS,
    AT_N_PLAYERS,
    MAX_HAND,
    N_CARD_CODES,
    N_CARDS_IN_DECK,
    N_SEATS,
    OBSERVATION_VERSION,
)
from mcts_ext.legal import legal_actions, seats_in_round

TOLERANCE = 1e-3
"""How far shares of visits may be from a sum of 1."""


@dataclass(frozen=True)
class Positions:
    """What training needs of `n` records."""

    observation: NDArray[np.uint8]
    """`[n, F]`."""
    policy: NDArray[np.float32]
    """`[n, A]` probabilities, 0 for illegal actions."""
    value: NDArray[np.float32]
    """`[n, S]` outcome by relative seat; 0 for seats that do not exist."""

    def __len__(self) -> int:
        return len(self.observation)


def find_shards(folders: Sequence[Path]) -> list[Path]:
    """The shards of runs, or of folders of runs, in order of time of change, then of path; each once."""
    changed: dict[Path, int] = {}
    for folder in folders:
        for path in folder.glob("**/shards/*.parquet"):
            with contextlib.suppress(FileNotFoundError):  # removed by someone who needs the room
                changed[path] = path.stat().st_mtime_ns
    return sorted(changed, key=lambda path: (changed[path], str(path)))


def read_positions(path: Path) -> Positions:
    """Read and check one shard.

    Raises:
        ShardError: it cannot be learned from, and why.
    """
    try:
        provenance = read_provenance(path)
        if provenance.get("observation_version") != OBSERVATION_VERSION:
            raise ShardError(
                f"expected observation version {OBSERVATION_VERSION}, "
                f"got {provenance.get('observation_version')!r} in {path}; record anew, or train with the code of it"
            )
        records = read_shards([path])
    except ShardError as error:
        raise ShardError(" ".join(str(error).split())) from error
    except (OSError, pa.ArrowException, AttributeError, KeyError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ShardError(f"expected a shard with columns {SCHEMA.names}, got {text} in {path}; remove it") from error
    positions = Positions(records.observation, records.policy, records.value)
    fault = _fault(positions)
    if fault:
        raise ShardError(f"expected records of a search, got {fault} in {path}; remove it")
    return positions


def _fault(positions: Positions) -> str:
    """What is wrong with the numbers; empty when nothing is."""
    rows, policy, value = positions.observation, positions.policy, positions.value
    if not len(rows):
        return "no rows"
    players, cards = rows[:, AT_N_PLAYERS].astype(np.int16), rows[:, AT_N_CARDS].astype(np.int16)
    if ((players < 3) | (players > N_SEATS) | (cards < 1) | (cards > MAX_HAND)).any():
        return "numbers of players or cards that no round has"
    if (rows[:, AT_CARDS : AT_CARDS + N_CARDS_IN_DECK] >= N_CARD_CODES).any():
        return "card bytes without a meaning"
    if not (np.isfinite(policy).all() and np.isfinite(value).all()):
        return "NaN or infinity"
    if (policy < 0).any() or (np.abs(policy.sum(axis=1) - 1) > TOLERANCE).any():
        return "shares of visits that do not sum to 1"
    if policy[~legal_actions(rows)].any():
        return "visits of illegal actions"
    if (value < 0).any() or (value > 1).any() or value[~seats_in_round(rows)].any():
        return "values outside 0..1, or of seats that the round does not have"
    return ""
