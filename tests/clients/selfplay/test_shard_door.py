# SPDX-License-Identifier: Apache-2.0
"""Shards from anywhere: whatever stands under a shard's name is refused by name, in one line, or is one."""

import json
import os
import random
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients.selfplay.records import (
    MAX_ROWS,
    PROVENANCE_KEY,
    SCHEMA,
    ShardError,
    read_shard,
    split_for_shards,
    write_shard,
)
from mcts_ext import contract
from mcts_ext.config import SearchConfig, Unit
from mcts_ext.decode import fault_in_observations
from mcts_ext.records import Records
from tests.support.recorded import record
from tests.support.shards import read_keys, read_shards
from training.replay import Replay
from training.shards import find_shards, read_positions

UNITS: tuple[Unit, ...] = ("round", "game")
VERSION = contract.OBSERVATION_VERSION
SAYS = {"observation_version": VERSION}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Records:
    run = record(tmp_path_factory.mktemp("found"), rounds=40, players=(3, 5, 8), cards=(1, 4, 6), shard_seconds=60)
    return read_shards(find_shards([run]))


def table(records: Records, *, says: bytes = json.dumps(SAYS).encode(), **columns: Any) -> pa.Table:
    """The table of a shard, with other columns or another word of its origin."""
    arrays = {}
    for field in SCHEMA:
        array = getattr(records, field.name)
        flat = pa.array(array.reshape(-1))
        arrays[field.name] = pa.FixedSizeListArray.from_arrays(flat, array.shape[1]) if array.ndim == 2 else flat
    arrays |= columns
    return pa.table(arrays, metadata={PROVENANCE_KEY: says})


def wide(records: Records, n_bytes: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(len(records) * n_bytes, np.uint8)), n_bytes)


def floats(records: Records, width: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(len(records) * width, np.float32)), width)


def with_bytes(at: int, *values: int) -> Callable[[Records], pa.Table]:
    """Shards with other bytes in one observation."""

    def make(records: Records) -> pa.Table:
        rows = records.observation.copy()
        rows[len(rows) // 2, at : at + len(values)] = values
        return table(replace(records, observation=rows))

    return make


def other(**changes: Callable[[Records], Any]) -> Callable[[Records], pa.Table]:
    """Shards with other columns."""
    return lambda records: table(records, **{name: make(records) for name, make in changes.items()})


def says(text: bytes) -> Callable[[Records], pa.Table]:
    return lambda records: table(records, says=text)


def nulls(records: Records) -> pa.Table:
    values = records.value.astype(object)
    values[3, 1] = None
    return table(records, value=pa.array(values.tolist(), pa.list_(pa.float32(), 8)))


def null_rows(records: Records) -> pa.Table:
    rows: list[Any] = records.observation.tolist()
    rows[2] = None
    return table(records, observation=pa.array(rows, pa.list_(pa.uint8(), 96)))


def twice(records: Records) -> pa.Table:
    whole = table(records)
    return pa.table([*whole.columns, whole.column("value")], names=[*SCHEMA.names, "value"], metadata=SAYS_BYTES)


SAYS_BYTES = {PROVENANCE_KEY: json.dumps(SAYS).encode()}

TABLES: dict[str, tuple[Callable[[Records], pa.Table], str]] = {
    "origin nested deeply": (says(b"[" * 50_000 + b"]" * 50_000), "nested too deeply"),
    "origin a list": (says(b"[1, 2]"), "JSON object"),
    "origin no JSON": (says(b"\xff{"), "an unreadable provenance"),
    "origin without a version": (says(b"{}"), "version None"),
    "origin with a version of text": (
        says(b'{"observation_version": "%d"}' % VERSION),
        f"version {VERSION}, not {VERSION}",
    ),
    "no origin": (lambda records: table(records).replace_schema_metadata(None), "no provenance"),
    "origin of a megabyte": (
        says(b'{"observation_version": %d, "a": "' % VERSION + b"a" * 2**20 + b'"}'),
        "footer of more",
    ),
    "observation of 40": (other(observation=lambda r: wide(r, 40)), "fixed_size_list<element: uint8>[40]"),
    "observation of 44": (other(observation=lambda r: wide(r, 44)), "[44]"),
    "observation of 100": (other(observation=lambda r: wide(r, 100)), "[100]"),
    "observation of strings": (other(observation=lambda r: pa.array(["x"] * len(r))), "observation string"),
    "observation of int64": (
        other(observation=lambda r: pa.array(r.observation.astype(np.int64).tolist(), pa.list_(pa.int64(), 96))),
        "int64>[96]",
    ),
    "observation of int64, plain": (other(observation=lambda r: pa.array(r.round)), "observation int64"),
    "observation of variable lists": (
        other(observation=lambda r: pa.array(r.observation.tolist(), pa.list_(pa.uint8()))),
        "observation list<element: uint8>",
    ),
    "policy of strings": (other(policy=lambda r: pa.array(["x"] * len(r))), "policy string"),
    "policy of lists of strings": (
        other(policy=lambda r: pa.array([["x"] * 66] * len(r), pa.list_(pa.string(), 66))),
        "string>[66]",
    ),
    "policy of 60": (other(policy=lambda r: floats(r, 60)), "float>[60]"),
    "value of 4": (other(value=lambda r: floats(r, 4)), "float>[4]"),
    "value of 9": (other(value=lambda r: floats(r, 9)), "float>[9]"),
    "nulls": (nulls, "nulls in value"),
    "null rows": (null_rows, "expected a shard"),
    "columns missing": (lambda records: table(records).drop_columns(["seat"]), "got columns"),
    "a column more": (other(more=lambda r: pa.array(r.round)), "got columns"),
    "columns twice": (twice, "got columns"),
    "columns in another order": (lambda records: table(records).select(SCHEMA.names[::-1]), "got columns"),
    "columns that may not be null": (
        lambda records: table(records).cast(
            pa.schema([field.with_nullable(False) for field in SCHEMA], metadata=SAYS_BYTES)
        ),
        "not null",
    ),
    "no rows": (lambda records: table(records).slice(0, 0), "no rows"),
    "trump 200": (with_bytes(contract.AT_TRUMP, 200), "an invalid trump"),
    "trump 5": (with_bytes(contract.AT_TRUMP, 5), "an invalid trump"),
    "dealer 250": (with_bytes(contract.AT_DEALER, 250), "an invalid dealer"),
    "tricks 255": (with_bytes(contract.AT_N_TRICKS, 255), "too many finished tricks"),
    "tricks of a seat 255": (with_bytes(contract.AT_TRICKS, 255), "tricks won"),
    "leader 255": (with_bytes(contract.AT_LEADER, 255), "an invalid leader"),
    "voids 255": (with_bytes(contract.AT_VOIDS, 255, 255, 255, 255), "voids of missing seats"),
    "totals 255": (with_bytes(contract.AT_TOTALS, *[255] * 16), "impossible totals"),
    "8 x 13": (with_bytes(contract.AT_N_PLAYERS, 8, 13), "more cards than a deck has"),
    "0 players": (with_bytes(contract.AT_N_PLAYERS, 0), "numbers of players"),
    "14 cards": (with_bytes(contract.AT_N_CARDS, 14), "numbers of players or cards"),
    "bids 255": (with_bytes(contract.AT_BIDS, 255), "invalid bids"),
    "round 200 of no game": (with_bytes(contract.AT_GAME_ROUND, 200), "an invalid round of a game"),
    "a game of 200": (with_bytes(contract.AT_START_CARDS, 200), "an invalid round of a game"),
    "a card code 255": (with_bytes(contract.AT_CARDS, 255), "invalid card codes"),
    "no cards": (with_bytes(contract.AT_CARDS, *[0] * 52), "too many or too few cards"),
    "all cards own": (with_bytes(contract.AT_CARDS, *[1] * 52), "too many or too few cards"),
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's name is short
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


def many_rows(path: Path) -> None:
    """One row, a million times over: some ten thousand bytes that took 2 GB to read."""
    part = table(Records.empty(2**16)).cast(SCHEMA)
    with pq.ParquetWriter(path, SCHEMA.with_metadata(SAYS_BYTES)) as file:
        for _ in range(16):
            file.write_table(part)


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a FIFO": (fifo, "a FIFO"),
    "a directory": (Path.mkdir, "a directory"),
    "a socket": (listening, "a socket"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "an empty file": (Path.touch, "an empty file"),
    "text": (lambda path: path.write_text("not one"), "not a complete Parquet file"),
    "a footer that is long": (lambda path: path.write_bytes(b"PAR1" * 3 + b"\xff\xff\xff\x7fPAR1"), "footer of more"),
    "a footer that is longer than the file": (
        lambda path: path.write_bytes(b"PAR1" * 3 + b"\xff\x00\x00\x00PAR1"),
        "expected a shard",
    ),
    "a million rows": (many_rows, f"{2**20} rows, not 1..{MAX_ROWS}"),
}


def write_bad(path: Path, how: str, records: Records) -> str:
    """Put something bad under a shard's name; what is to be said of it."""
    if how in FILES:
        make, word = FILES[how]
        make(path)
        return word
    of, word = TABLES[how]
    pq.write_table(of(records), path)
    return word


@pytest.mark.parametrize("how", [*TABLES, *FILES])
def test_what_is_no_shard_is_refused_by_name_and_left_out(how: str, tmp_path: Path, found: Records) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    good, bad = shards / "good.parquet", shards / "bad.parquet"
    write_shard(good, found, provenance={})
    word = write_bad(bad, how, found)
    events: list[str] = []
    replay = Replay([tmp_path], relative_to=tmp_path, capacity=9999, window=lambda n: n, on_event=events.append)
    assert replay.find_new() == len(found)
    assert replay.find_new() == 0
    (event,) = events
    assert word in event
    assert os.path.realpath(bad) in event
    assert "\n" not in event
    assert event.endswith(("; remove it", "; record new rounds, or use the version that wrote it"))
    with pytest.raises(ShardError, match="expected a shard"):
        read_shards([bad])


def test_a_shard_is_read_whoever_wrote_it_so(tmp_path: Path, found: Records) -> None:
    pq.write_table(table(found), tmp_path / "a.parquet", compression="snappy", row_group_size=50, use_dictionary=False)
    for name, array in vars(read_shards([tmp_path / "a.parquet"])).items():
        np.testing.assert_array_equal(array, getattr(found, name))
        assert array.dtype == getattr(found, name).dtype
    assert len(read_positions(tmp_path / "a.parquet")[0]) == len(found)
    assert set(read_shard(tmp_path / "a.parquet", ["round"]).columns["round"].tolist()) == set(found.round.tolist())
    assert [len(one) for one in read_keys(tmp_path / "a.parquet")] == [len(found)] * 2


def test_all_that_play_leaves_behind_is_sound(tmp_path: Path) -> None:
    write = partial(record, cards=(1, 2, 6), search=SearchConfig(determinizations=1, simulations=1), shard_seconds=60)
    for n_players in range(3, 9):
        runs = [write(tmp_path / f"{unit}{n_players}", rounds=30, players=(n_players,), unit=unit) for unit in UNITS]
        assert len(read_shards(find_shards(runs))) > 200


def test_changed_bytes_are_found_or_harmless(tmp_path: Path, found: Records) -> None:
    """1,500 shards with flipped bits, lost tails and copied stretches: refused or read, and never anything else.

    In a process of its own: it may not take more than half a gigabyte on top, nor die.
    """
    write_shard(tmp_path / "good.parquet", found, provenance={"seed": 1})
    done = subprocess.run(
        [sys.executable, "-m", "tests.clients.selfplay.test_shard_door", str(tmp_path / "good.parquet")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    n_refused, n_read, grown_kb = map(int, done.stdout.split())
    assert n_refused + n_read == 1500
    assert n_refused > 500
    assert grown_kb < 512 * 1024


def spoil_at_random(good: Path) -> None:
    """The process of the test above."""
    whole, rng = good.read_bytes(), random.Random(5)
    bad = good.with_name("bad.parquet")
    read_shards([good])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n, n_read = {True: 0, False: 0}, 0
    for i in range(1500):
        data = bytearray(whole)
        if i % 3 == 0:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.randrange(1, 9) if i % 3 else 0):
            # Half of the changes fall into the footer, which all else hangs on.
            at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(len(data) - 4000, len(data) - 8)
            data[at] ^= 1 << rng.randrange(8)
        if i % 5 == 1 and len(data) > 100:
            at, to = rng.randrange(len(data) - 100), rng.randrange(len(data) - 100)
            data[to : to + 100] = data[at : at + 100]
        bad.write_bytes(data)
        try:
            read_shards([bad])
        except ShardError as error:
            n["\n" in str(error)] += 1
        else:
            n_read += 1
    print(n[False], n_read, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_a_worker_that_has_much_to_write_splits_between_rounds(found: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.selfplay.records.MAX_ROWS", 100)
    parts = list(split_for_shards(found))
    assert sum(map(len, parts)) == len(found)
    assert all(0 < len(part) <= 100 for part in parts)
    for before, after in pairwise(parts):
        assert before.round[-1] != after.round[0]
    assert len(list(split_for_shards(parts[0]))) == 1


def test_checking_is_cheap(tmp_path: Path, found: Records) -> None:
    """About 1 us a row; the limit leaves room for a busy machine, and none for a loop over rows in Python."""
    rows = np.tile(found.observation, (20, 1))
    began = time.process_time()
    assert fault_in_observations(rows) == ""
    assert (time.process_time() - began) / len(rows) < 20e-6


if __name__ == "__main__":
    spoil_at_random(Path(sys.argv[1]))
