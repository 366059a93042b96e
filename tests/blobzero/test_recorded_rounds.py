# SPDX-License-Identifier: Apache-2.0
"""Rounds that others record: counted once each, whatever else lies in the folder, and waited for."""

import shutil
import threading
from pathlib import Path

import pytest

from blobzero.loop import recorded as others
from blobzero.loop.recorded import RecordedRounds, wait_for_rounds
from clients.selfplay.records import write_shard
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.pool import SelfPlayPool
from tests.support.evaluators import run_pool, uniform

NOBODY = "127.0.0.1:9"


def record(folder: Path, name: str, first: int, n_rounds: int) -> None:
    """A shard of some rounds, as one worker of one run leaves it."""
    search, deal = SearchConfig(determinizations=1, simulations=2), DealConfig(players=(4,), cards=(3,))
    pool = SelfPlayPool(range(first, first + n_rounds), seed=1, deal=deal, search=search)
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    write_shard(folder / "shards" / name, run_pool(pool, uniform), provenance={})


def test_rounds_are_counted_in_every_run_and_once(tmp_path: Path) -> None:
    recorded = RecordedRounds(tmp_path, tmp_path / "ledger")
    assert recorded.count() == 0
    record(tmp_path / "a", "0.parquet", 0, 20)
    record(tmp_path / "b", "0.parquet", 0, 10)  # another run: its own deals under the same numbers
    assert [recorded.count(), recorded.count()] == [30, 30]
    (tmp_path / "b" / "shards" / "1.parquet").write_bytes(b"not one")
    (tmp_path / "b" / "shards" / ".2.parquet.partial").write_bytes(b"not yet one")
    record(tmp_path / "b", "3.parquet", 10, 5)
    assert recorded.count() == 35


def test_rounds_that_were_counted_stay_so_when_their_shards_are_removed(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    record(tmp_path / "a", "0.parquet", 0, 20)
    record(tmp_path / "b", "0.parquet", 0, 10)
    assert RecordedRounds(tmp_path, ledger).count() == 30
    shutil.rmtree(tmp_path / "a")
    record(tmp_path / "b", "1.parquet", 10, 5)
    assert RecordedRounds(tmp_path, ledger).count() == 35
    whole = ledger.read_text()
    ledger.write_text(whole[:-3])  # killed while it wrote that of the last shard
    assert [RecordedRounds(tmp_path, ledger).count() for _ in range(2)] == [35, 35]


def test_a_generation_begins_once_its_rounds_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "POLL_S", 0.05)
    monkeypatch.setattr(others, "SAY_S", 0.1)
    record(tmp_path / "a", "0.parquet", 0, 20)
    recorded, said = RecordedRounds(tmp_path, tmp_path / "ledger"), list[str]()
    later = threading.Timer(0.5, record, (tmp_path / "b", "0.parquet", 0, 15))
    later.start()
    summary = wait_for_rounds(recorded, 30, before=12, url=NOBODY, say=said.append)
    later.join()
    assert (summary["rounds"], summary["rounds_before"]) == (15, 8)
    assert summary["rounds_per_min"] > 0
    assert summary["seconds"] > 0.4
    assert said[0].startswith("20 of 30 rounds recorded")
    at_once = wait_for_rounds(recorded, 35, before=30, url=NOBODY, say=said.append)
    assert (at_once["rounds"], at_once["rounds_before"]) == (0, 5)
