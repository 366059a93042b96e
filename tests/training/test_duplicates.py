# SPDX-License-Identifier: Apache-2.0
"""Rounds of one seed that stand in two shards: named in one line, and learned from once."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from clients.selfplay.records import read_shard, shard_paths, write_shard
from mcts_ext.records import Records
from tests.support.recorded import record
from tests.support.shards import read_shards
from tests.support.train_and_kill import CONFIG
from training.replay import Replay, ShardEntry
from training.state import load_state
from training.trainer import STATE, TrainReport, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("run") / "first", rounds=60, kind="uniform")


def again(run: Path, to: Path, *, rounds: slice = slice(None), **provenance: Any) -> Path:
    """Some rounds of a run in one shard of another, as if its seed had been played twice."""
    records, says = read_shards(shard_paths(run / "shards")), read_shard(shard_paths(run / "shards")[0], []).provenance
    chosen = np.isin(records.round, np.unique(records.round)[rounds])
    return write(Records(**{k: v[chosen] for k, v in vars(records).items()}), to, says | provenance)


def write(records: Records, to: Path, provenance: Mapping[str, Any]) -> Path:
    path = to / "shards" / "w000.parquet"
    path.parent.mkdir(parents=True)
    write_shard(path, records, provenance=provenance)
    return path


def replay(folders: list[Path], events: list[str]) -> Replay:
    return Replay(
        folders, relative_to=folders[0], capacity=5000, window=lambda n: min(n, 5000), on_event=events.append
    )  # fmt: skip


def test_the_same_rounds_in_another_run_are_used_once_and_named_in_one_line(run: Path, tmp_path: Path) -> None:
    events: list[str] = []
    alone, both = replay([run], events), replay([run, tmp_path], events)
    alone.find_new()
    double = again(run, tmp_path / "second")
    assert both.find_new() == alone.n_total
    (event,) = events
    assert event.startswith("60 duplicate rounds are used once: 1 shards repeat rounds of a seed")
    assert f"seed 0, {double}" in event
    assert "\n" not in event
    assert both.find_new() == 0
    assert len(events) == 1
    one, two = (each.draw(500, np.random.default_rng(4)) for each in (alone, both))
    assert (one.observation == two.observation).all()
    assert replace(both.entries[-1], name="") == ShardEntry("", 0, 60)


def test_of_a_shard_that_is_new_in_part_the_new_rounds_are_used(run: Path, tmp_path: Path) -> None:
    again(run, tmp_path / "second", rounds=slice(0, 40))
    again(run, tmp_path / "third", rounds=slice(20, 60))
    both = replay([tmp_path / "second", tmp_path / "third"], events := [])
    both.find_new()
    assert both.n_total == len(read_shards(shard_paths(run / "shards")))
    assert [entry.n_again for entry in both.entries] == [0, 20]
    assert "20 duplicate rounds" in events[0]


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"search": {"simulations": 9}}, {"deal": {"players": [3]}}, {"evaluator": "hash"}, {"seed": None}],
)
def test_other_seeds_deals_searches_and_networks_are_other_rounds(
    other: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    again(run, tmp_path / "second", **other)
    both = replay([run, tmp_path], events := [])
    both.find_new()
    assert both.n_total == 2 * len(read_shards(shard_paths(run / "shards")))
    assert not events


def test_the_same_seed_with_another_version_of_the_network_is_new(run: Path, tmp_path: Path) -> None:
    records, says = read_shards(shard_paths(run / "shards")), read_shard(shard_paths(run / "shards")[0], []).provenance
    write(replace(records, model_version=records.model_version + 1), tmp_path / "second", says)
    both = replay([run, tmp_path], events := [])
    assert both.find_new() == 2 * len(records)
    assert not events


@pytest.mark.parametrize("parts", [(slice(0, 60), slice(0, 60)), (slice(0, 40), slice(20, 60))])
def test_a_training_run_that_goes_on_leaves_out_the_same(parts: tuple[slice, slice], run: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    for name, part in zip("ab", parts, strict=True):
        again(run, tmp_path / "records" / name, rounds=part)
    events: list[str] = []

    def until(step: int, out: str) -> TrainReport:
        records = [tmp_path / "records"]
        return train(CONFIG, records=records, out=tmp_path / out, until_step=step, on_event=events.append)

    whole = until(20, "whole")
    assert whole.rounds_again == (60 if parts[0] == parts[1] else 20)
    assert whole.positions_available == len(read_shards(shard_paths(run / "shards")))
    assert whole.shards == (1 if parts[0] == parts[1] else 2)
    until(10, "broken")
    assert len(events) == 2  # once for each of these
    broken = until(20, "broken")
    assert len(events) == 2
    assert (broken.rounds_again, broken.positions_available) == (whole.rounds_again, whole.positions_available)
    one, two = (load_state(tmp_path / name / STATE) for name in ("whole", "broken"))
    assert one.shards == two.shards
    assert all(torch.equal(tensor, two.tensors[name]) for name, tensor in one.tensors.items())


def test_a_run_without_them_has_the_state_it_always_had(run: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    train(CONFIG, records=[run], out=tmp_path, until_step=1)
    with safe_open(tmp_path / STATE, framework="pt") as file:
        shards = json.loads(file.metadata()["state"])["shards"]
    assert shards
    assert all(len(entry) == 2 for entry in shards)
