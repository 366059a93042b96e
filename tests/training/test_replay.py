# SPDX-License-Identifier: Apache-2.0
"""The window over shards: its size, what is drawn from it, and what is left out of it."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients.selfplay.records import PROVENANCE_KEY, write_shard
from mcts_ext.records import Records
from tests.support.recorded import record
from tests.support.shards import read_shards
from training.replay import Replay, ReplayError, window_size
from training.shards import find_shards


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Records:
    run = record(tmp_path_factory.mktemp("found"), rounds=60, shard_seconds=60)
    return read_shards(find_shards([run]))


def rows_of(records: Records, first: int, n: int) -> Records:
    return Records(**{name: array[first : first + n] for name, array in vars(records).items()})


def write(records: Records, path: Path, *, at: int) -> Path:
    """A shard that was finished `at` seconds after some moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, records, provenance={})
    os.utime(path, (1e9 + at, 1e9 + at))
    return path


def replay(
    folder: Path, *, capacity: int = 1000, window: int = 1000, recent: bool = False, events: list[str] | None = None
) -> Replay:
    return Replay(
        [folder],
        relative_to=folder / "train",
        capacity=capacity,
        window=lambda n: min(n, window),
        recent=recent,
        on_event=(events if events is not None else []).append,
    )


def test_window_size() -> None:
    katago = {"minimum": 250_000, "exponent": 0.75, "slope": 0.4, "maximum": 10**9}
    assert [window_size(n, **katago) for n in (0, 100, 250_000)] == [0, 100, 250_000]
    assert window_size(250_100, **katago) == pytest.approx(250_040, abs=1)
    assert window_size(4_000_000, **katago) == int(250_000 * (1 + 0.4 * (16**0.75 - 1) / 0.75))  # 1,183,333
    assert window_size(4_000_000, **{**katago, "maximum": 7}) == 7
    starts = [n - window_size(n, **katago) for n in range(0, 5_000_000, 9_999)]
    assert starts == sorted(starts)  # what left the window never comes back


def test_draws_come_uniformly_from_the_newest_positions(tmp_path: Path, found: Records) -> None:
    write(rows_of(found, 200, 100), tmp_path / "b" / "shards" / "x.parquet", at=1)
    write(rows_of(found, 0, 200), tmp_path / "a" / "shards" / "y.parquet", at=2)
    newest = replay(tmp_path, window=150)
    assert newest.find_new() == 300
    assert (newest.n_total, newest.window) == (300, 150)
    drawn = newest.draw(30_000, np.random.default_rng(0))
    place = {row.tobytes(): i for i, row in enumerate(found.observation)}
    assert len(place) == len(found)
    counts = np.bincount([place[row.tobytes()] for row in drawn.observation], minlength=300)
    assert not counts[:50].any()
    assert not counts[200:].any()
    assert 130 < counts[50:200].min() < counts[50:200].max() < 280  # 200 expected, 14 standard deviation
    for i in range(100):
        at = place[drawn.observation[i].tobytes()]
        assert drawn.value[i].tolist() == found.value[at].tolist()
        assert drawn.policy[i] == pytest.approx(found.policy[at], abs=1e-3)
    assert drawn.policy.sum(axis=1) == pytest.approx(1, abs=1e-6)


def test_recent_draws_rise_linearly_with_the_position(tmp_path: Path, found: Records) -> None:
    write(rows_of(found, 0, 200), tmp_path / "shards" / "x.parquet", at=1)
    write(rows_of(found, 200, 100), tmp_path / "shards" / "y.parquet", at=2)
    newest = replay(tmp_path, capacity=170, window=150, recent=True)  # the ring has wrapped
    newest.find_new()
    drawn = newest.draw(90_000, np.random.default_rng(0))
    place = {row.tobytes(): i for i, row in enumerate(found.observation)}
    counts = np.bincount([place[row.tobytes()] for row in drawn.observation], minlength=300)
    assert not counts[:150].any()
    expected = 90_000 * (2 * np.arange(150) + 1) / 150**2
    off = (counts[150:300] - expected) / np.sqrt(expected)
    assert 0.7 < (off**2).mean() < 1.35  # chi squared of 149 degrees of freedom: 1 +- 0.12


def test_the_ring_holds_the_newest_when_it_is_full(tmp_path: Path, found: Records) -> None:
    small = replay(tmp_path, capacity=70, window=70)
    for number in range(5):
        write(rows_of(found, 50 * number, 50), tmp_path / "shards" / f"{number}.parquet", at=number)
        assert small.find_new() == 50
        assert small.find_new() == 0
    drawn = {row.tobytes() for row in small.draw(5000, np.random.default_rng(0)).observation}
    assert drawn == {row.tobytes() for row in found.observation[180:250]}
    write(rows_of(found, 250, 200), tmp_path / "shards" / "5.parquet", at=5)
    small.find_new()
    drawn = {row.tobytes() for row in small.draw(5000, np.random.default_rng(0)).observation}
    assert drawn == {row.tobytes() for row in found.observation[380:450]}


@pytest.mark.parametrize("recent", [False, True])
def test_a_restored_window_draws_the_same(recent: bool, tmp_path: Path, found: Records) -> None:
    for number, at in enumerate([3, 1, 2]):
        write(rows_of(found, 50 * number, 50), tmp_path / "shards" / f"{number}.parquet", at=at)
    before = replay(tmp_path, window=80, recent=recent)
    before.find_new()
    write(rows_of(found, 150, 50), tmp_path / "shards" / "older.parquet", at=0)  # found later: newest here
    before.find_new()
    after = replay(tmp_path, window=80, recent=recent)
    (tmp_path / "shards" / "1.parquet").write_bytes(b"")  # left the window long ago, and is not read again
    after.restore(before.entries)
    assert after.find_new() == 0
    assert after.entries == before.entries
    assert after.window == before.window == 80
    one, two = (r.draw(500, np.random.default_rng(4)) for r in (before, after))
    assert (one.observation == two.observation).all()
    assert (one.policy == two.policy).all()


def spoil(path: Path, how: str, records: Records) -> None:
    policy, value, rows = records.policy.copy(), records.value.copy(), records.observation.copy()
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "overwritten":
        data = bytearray(path.read_bytes())
        data[100:400] = bytes(300)
        path.write_bytes(data)
    elif how == "another version":
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({PROVENANCE_KEY: b'{"observation_version": 99}'}), path)
    elif how == "columns missing":
        pq.write_table(pq.read_table(path).drop_columns(["value"]), path)
    elif how == "another Parquet file":
        pq.write_table(pa.table({"a": [1, 2]}), path)
    elif how == "NaN":
        value[3, 0] = np.nan
        write_shard(path, replace(records, value=value), provenance={})
    elif how == "illegal visits":
        policy[5] = 0
        policy[5, 13] = 1
        write_shard(path, replace(records, policy=policy), provenance={})
    elif how == "no shares":
        policy[5] *= 2
        write_shard(path, replace(records, policy=policy), provenance={})
    elif how == "an absent seat scores":
        value[0, 7] = 0.5
        write_shard(path, replace(records, value=value), provenance={})
    elif how == "no players":
        rows[0, 0] = 0
        write_shard(path, replace(records, observation=rows), provenance={})
    else:
        write_shard(path, Records.empty(0), provenance={})


FAULTS = {
    "truncated": "expected a shard",
    "empty": "expected a shard",
    "overwritten": "expected",
    "another version": "version 99",
    "columns missing": "got columns (observation fixed_size_list",
    "another Parquet file": "expected a shard",
    "NaN": "NaN or infinity",
    "illegal visits": "illegal actions",
    "no shares": "do not sum to 1",
    "an absent seat scores": "values of missing seats",
    "no players": "numbers of players",
    "no rows": "no rows",
}


@pytest.mark.parametrize("how", FAULTS)
def test_a_bad_shard_is_named_in_one_line_and_left_out(how: str, tmp_path: Path, found: Records) -> None:
    good = write(rows_of(found, 0, 100), tmp_path / "shards" / "good.parquet", at=1)
    bad = write(rows_of(found, 100, 100), tmp_path / "shards" / "bad.parquet", at=0)
    spoil(bad, how, rows_of(found, 100, 100))
    events: list[str] = []
    both = replay(tmp_path, events=events)
    assert both.find_new() == 100
    assert both.find_new() == 0  # and not named again
    (event,) = events
    assert str(bad) in event
    assert FAULTS[how] in event
    assert "\n" not in event
    assert list(both.set_aside.values()) == [event.removeprefix("skipped: ")]
    drawn = {row.tobytes() for row in both.draw(2000, np.random.default_rng(0)).observation}
    assert drawn == {row.tobytes() for row in found.observation[:100]}
    both.check_not_empty()
    good.unlink()
    alone = replay(tmp_path)
    alone.find_new()
    with pytest.raises(ReplayError, match="1 unusable ones") as error:
        alone.check_not_empty()
    assert "\n" not in str(error.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="expected shards of records"):
        replay(tmp_path).check_not_empty()
