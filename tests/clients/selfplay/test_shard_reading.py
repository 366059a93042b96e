# SPDX-License-Identifier: Apache-2.0
"""Shards that cannot be read now, stand behind links, are hidden, or went: none of them is taken for a bad one."""

import contextlib
import errno
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from blobzero.loop.recorded import RecordedRounds
from clients.selfplay import records as reading
from clients.selfplay.records import ShardGone, ShardUnavailable, finished_rounds, shard_paths
from clients.selfplay.shares import Share
from export.positions import recorded_rows
from mcts_ext.config import DealConfig
from perf.soak.rounds import Bookkeeper
from tests.support.recorded import record
from tests.support.shards import read_shards
from training.replay import Replay
from training.shards import find_shards


def replay(folder: Path, events: list[str], *, relative_to: Path | None = None) -> Replay:
    out = relative_to or folder / "train"
    return Replay([folder], relative_to=out, capacity=9999, window=lambda n: n, on_event=events.append)


@contextlib.contextmanager
def no_files_left() -> Iterator[None]:
    """A process that has opened all the files it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    opened = []
    with contextlib.suppress(OSError):
        while True:
            opened.append(os.open("/", os.O_RDONLY))
    try:
        yield
    finally:
        for one in opened:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def not_allowed(path: Path) -> Iterator[None]:
    """As a user who may not read the file."""
    for folder in path.parents:
        if folder.is_relative_to(tmp_path_root := Path(tempfile.gettempdir())) and folder != tmp_path_root:
            folder.chmod(0o755)  # only the file itself is to be closed
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(0o644)


def test_no_right_to_read_is_named_and_tried_again(tmp_path: Path) -> None:
    record(tmp_path, rounds=12, shard_seconds=60)
    (shard,) = shard_paths(tmp_path / "shards")
    events: list[str] = []
    found = replay(tmp_path, events)
    with not_allowed(shard):
        assert [found.find_new(), found.find_new()] == [0, 0]
        with pytest.raises(ShardUnavailable, match="Permission denied; it is kept and read again later"):
            read_shards([shard])
    (event,) = events
    assert str(shard) in event
    assert "remove" not in event
    assert found.find_new() == len(read_shards([shard]))
    assert not found.set_aside


def test_too_many_open_files_is_no_fault_of_a_shard(tmp_path: Path) -> None:
    record(tmp_path / "run", rounds=12, shard_seconds=60)
    (shard,) = shard_paths(tmp_path / "run" / "shards")
    books, others = Bookkeeper(tmp_path / "run" / "shards"), RecordedRounds(tmp_path, tmp_path / "ledger")
    present, listed = [shard], shard_paths
    with no_files_left(), pytest.raises(ShardUnavailable, match="Too many open files"):
        read_shards(present)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perf.soak.rounds.shard_paths", lambda _: present)
        patch.setattr("blobzero.loop.recorded.find_shards", lambda *_, **__: present)
        with no_files_left():
            assert books.look().unreadable == [shard.name]
            assert others.count() == 0
            assert "Too many open files" in others.troubles[str(shard)]
    assert listed(tmp_path / "run" / "shards") == present
    assert books.look().unreadable == []
    assert books.settle(12).lost == []
    assert others.count() == 12
    assert not others.troubles


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENFILE, errno.ENOMEM, errno.EACCES])
def test_errors_of_reading_are_told_from_bad_shards(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, rounds=6, shard_seconds=60)
    (shard,) = shard_paths(tmp_path / "shards")
    monkeypatch.setattr(reading, "RETRY_S", 0.01)
    tries = []

    def fail(path: str, flags: int) -> int:
        tries.append(path)
        raise OSError(number, os.strerror(number), path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clients.files._open_nonblocking", fail)
        with pytest.raises(ShardUnavailable, match=os.strerror(number)):
            read_shards([shard])
        tries.clear()
        with pytest.raises(ShardUnavailable):  # a run that went on without knowing would record rounds twice
            Share.left(tmp_path / "shards", DealConfig(), seed=0, rounds=6, index=0, workers=1)
        assert len(tries) == reading.TRIES
    assert finished_rounds(tmp_path / "shards") == set(range(6))


def test_an_error_in_the_midst_of_a_file_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path, rounds=6, shard_seconds=60)
    (shard,) = shard_paths(tmp_path / "shards")

    class Failing(reading.pq.ParquetFile):  # type: ignore[misc]
        def iter_batches(self, *_: object, **__: object) -> Iterator[object]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(reading.pq, "ParquetFile", Failing)
    with pytest.raises(ShardUnavailable, match="Input/output error"):
        read_shards([shard])


def test_a_shard_that_went_is_neither_bad_nor_tried_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path / "run", rounds=12, shard_seconds=60)
    (shard,) = shard_paths(tmp_path / "run" / "shards")
    listing = find_shards([tmp_path])
    shard.unlink()
    with pytest.raises(ShardGone):
        read_shards(listing)
    events: list[str] = []
    monkeypatch.setattr("training.replay.find_shards", lambda *_, **__: listing)
    found = replay(tmp_path, events)
    assert found.find_new() == 0
    assert found.set_aside == {}


@pytest.mark.parametrize("unit", ["round", "game"])
def test_a_bad_shard_does_not_keep_a_worker_from_starting(unit: str, tmp_path: Path) -> None:
    deal = DealConfig(players=(4,), cards=(3,), unit="game" if unit == "game" else "round")
    record(tmp_path, rounds=24, cards=(3,), unit=deal.unit)
    shards = shard_paths(tmp_path / "shards")
    assert len(shards) > 1
    whole = finished_rounds(tmp_path / "shards")
    (lost := shards[-1]).write_bytes(b"not one")
    events: list[str] = []
    kept = finished_rounds(tmp_path / "shards", on_event=events.append)
    assert kept < whole
    (event,) = events
    assert str(lost) in event
    share = Share.left(tmp_path / "shards", deal, seed=0, rounds=24, index=0, workers=1)
    assert set(share.rounds.tolist()) >= (whole - kept if unit == "round" else {min(whole - kept)})
    assert not set(share.rounds.tolist()) & kept


def test_links_are_followed_and_each_shard_is_found_once(tmp_path: Path) -> None:
    """A linked run, two names of it, a link to a shard, links in a circle, and a link to nothing."""
    record(tmp_path / "elsewhere" / "run", rounds=12, shard_seconds=60)
    records = tmp_path / "records"
    record(records / "own", rounds=6, shard_seconds=60, seed=1)
    for name in ("a", "b"):
        (records / name).symlink_to(tmp_path / "elsewhere" / "run")
    (records / "c").mkdir()
    (records / "c" / "shards").symlink_to(tmp_path / "elsewhere" / "run" / "shards")
    (records / "0").symlink_to(tmp_path / "elsewhere" / "run" / "shards")  # first, and not by the name of shards
    (records / "own" / "circle").symlink_to(records)
    own = shard_paths(records / "own" / "shards")
    (records / "own" / "shards" / "again.parquet").symlink_to(own[0])
    (records / "own" / "shards" / "nothing.parquet").symlink_to("nowhere")
    (linked,) = shard_paths(tmp_path / "elsewhere" / "run" / "shards")
    assert set(find_shards([records])) == {linked, own[0]}
    events: list[str] = []
    total = len(read_shards([linked])) + len(read_shards(own))
    first = replay(records, events)
    assert [first.find_new(), first.find_new()] == [total, 0]
    (records / "0 comes first").symlink_to(tmp_path / "elsewhere" / "run")
    assert first.find_new() == 0
    again = replay(records, events)
    again.restore(first.entries)
    assert again.find_new() == 0
    assert events == []
    assert [RecordedRounds(records, tmp_path / "ledger").count() for _ in range(2)] == [18, 18]
    assert len(recorded_rows(records, 10, seed=1)[0]) == 10


def test_a_state_from_before_links_were_followed_knows_its_shards(tmp_path: Path) -> None:
    """Names in a state, or in the ledger of a loop, may lead through a link: they are not taken up again."""
    record(tmp_path / "disk" / "run", rounds=12, shard_seconds=60)
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    events: list[str] = []
    out = tmp_path / "train"
    before = replay(tmp_path / "data", events, relative_to=out)
    before.find_new()
    (entry,) = before.entries
    old = type(entry)(entry.name.replace("disk", "data"), entry.rows)
    after = replay(tmp_path / "data", events, relative_to=out)
    after.restore([old])
    assert after.find_new() == 0
    assert after.n_total == entry.rows
    ledger = tmp_path / "ledger"
    (name,) = (str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data" / "run" / "shards").iterdir())
    ledger.write_text(f'\n{json.dumps([name, 12])}\n[[[\n3\n["a", "x"]\n')
    assert RecordedRounds(tmp_path / "data", ledger).count() == 12


def test_hidden_files_and_folders_are_not_looked_at(tmp_path: Path) -> None:
    record(tmp_path / "run", rounds=6, shard_seconds=60)
    shards = tmp_path / "run" / "shards"
    (shard,) = shard_paths(shards)
    for hidden in (shards / "._copy.parquet", shards / ".nfs01.parquet", tmp_path / ".snapshot/run/shards/x.parquet"):
        hidden.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(shard.read_bytes())
    assert shard_paths(shards) == find_shards([tmp_path]) == find_shards([shards]) == [shard]
    assert finished_rounds(shards) == set(range(6))
    assert Bookkeeper(shards).settle(6).faults == []
    assert RecordedRounds(tmp_path, tmp_path / "ledger").count() == 6
    rows, origin = recorded_rows(tmp_path, 5, seed=1)
    assert (len(rows), origin) == (5, f"5 recorded in {tmp_path}")


def test_an_export_leaves_bad_shards_out_and_says_so(tmp_path: Path) -> None:
    record(tmp_path / "run", rounds=20, shard_seconds=60)
    bad = tmp_path / "run" / "shards" / "bad.parquet"
    bad.write_bytes(b"not one")
    rows, origin = recorded_rows(tmp_path, 300, seed=1)
    assert len(np.unique(rows, axis=0)) == 300
    assert f"1 shards skipped, the first: expected a shard of records at {bad}" in origin
