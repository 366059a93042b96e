# SPDX-License-Identifier: Apache-2.0
"""Shards, read as tests want them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.selfplay.records import read_shard
from mcts_ext.records import Records


def read_shards(paths: Sequence[Path]) -> Records:
    """All decisions of the shards, in order; raises as `read_shard`."""
    parts = [Records.empty(0), *(Records(**read_shard(path).columns) for path in paths)]
    return Records(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def read_keys(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """Round and decision, `[n]` each, of every record; raises as `read_shard`."""
    columns = read_shard(path, ["round", "decision"]).columns
    return columns["round"], columns["decision"]
