# SPDX-License-Identifier: Apache-2.0
"""Shards: what is written is read back, and a failed write leaves nothing under a final name."""

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from clients.selfplay import records as shards
from clients.selfplay.records import SCHEMA, ShardError, finished_rounds, read_shard, write_shard
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.pool import SelfPlayPool
from mcts_ext.records import Records
from tests.support.evaluators import run_pool, uniform
from tests.support.shards import read_shards


def some_records(n: int, *, first_round: int = 0) -> Records:
    """Real positions, under numbers of their own."""
    search, deal = SearchConfig(determinizations=1, simulations=2), DealConfig(players=(3, 5, 8), cards=(1, 5))
    found = run_pool(SelfPlayPool(range(n), seed=n + first_round, deal=deal, search=search), uniform)
    found = Records(**{name: array[:n].copy() for name, array in vars(found).items()})
    found.round[:] = first_round + np.arange(n) // 3
    found.decision[:] = np.arange(n) % 3
    found.model_version[:] = 2**40 + np.arange(n)
    return found


def test_schema_has_exactly_the_fields_of_records() -> None:
    assert SCHEMA.names == [field.name for field in fields(Records)]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    first, second = some_records(30), some_records(7, first_round=100)
    write_shard(tmp_path / "a.parquet", first, provenance={"seed": 5})
    write_shard(tmp_path / "b.parquet", second, provenance={"seed": 5})
    found = read_shards(shards.shard_paths(tmp_path))
    for field in fields(Records):
        wanted = np.concatenate([getattr(first, field.name), getattr(second, field.name)])
        np.testing.assert_array_equal(getattr(found, field.name), wanted)
        assert getattr(found, field.name).dtype == wanted.dtype
    assert finished_rounds(tmp_path) == {*range(10), 100, 101, 102}
    assert read_shard(tmp_path / "a.parquet", []).provenance == {"seed": 5, "observation_version": 2}


def test_an_empty_folder_has_no_rounds(tmp_path: Path) -> None:
    assert finished_rounds(tmp_path) == set()
    assert len(read_shards([])) == 0


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ShardError, match="No space left on device; free space"):
        write_shard(tmp_path / "a.parquet", some_records(9), provenance={})
    assert list(tmp_path.iterdir()) == []


def test_half_a_shard_is_refused_in_one_line(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.parquet", some_records(30), provenance={})
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShardError, match="expected a shard of records"):
        read_shard(tmp_path / "a.parquet", ["round"])
    with pytest.raises(ShardError, match="expected a shard of records"):
        read_shard(tmp_path / "a.parquet", [])
