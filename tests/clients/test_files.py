# SPDX-License-Identifier: Apache-2.0
"""What is read from a disk: small regular files alone, whoever put what under their names; the rest in one line."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blobzero.cli import main
from blobzero.loop.config import load_settings
from blobzero.loop.recorded import RecordedRounds
from clients.files import MOST_BYTES, Unfit, fault, read_json, read_small
from clients.keys import read_key
from clients.lock import is_held, sole_writer
from clients.selfplay.folder import RunFolder
from clients.selfplay.records import read_shard
from export.graph import read_metadata
from export.publishing.registry import Registry
from mcts_ext.errors import BlobError
from training.metrics import read_metrics

READERS: dict[str, Callable[[Path], Any]] = {
    "run.json": lambda path: RunFolder(path.parent).seed(),
    "registry.json": lambda path: Registry(path.parent),
    "recorded.jsonl": lambda path: RecordedRounds(path.parent, path),
    "metrics.jsonl": read_metrics,
    "loop.toml": lambda path: load_settings(str(path)),
    "key": read_key,
    "model.onnx": read_metadata,
    "model.pt": read_metadata,
    "a.parquet": read_shard,
}


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    signal.alarm(60)
    yield
    signal.alarm(0)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, 3 << 30)


@pytest.mark.parametrize("make", [fifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_regular_file_is_neither_waited_for_nor_read(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises((BlobError, OSError), match=r"(^|got )a (FIFO|directory|device)\b"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", ["run.json", "registry.json", "recorded.jsonl", "metrics.jsonl", "loop.toml", "key"])
def test_a_file_that_is_too_large_is_not_read(name: str, tmp_path: Path) -> None:
    endless(tmp_path / name)
    with pytest.raises((BlobError, OSError), match=r"3,221,225,472 bytes, more than [0-9,]+"):
        READERS[name](tmp_path / name)


def test_what_is_small_and_regular_is_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"a": 1}')
    (tmp_path / "b").symlink_to("a")
    assert read_json(tmp_path / "b") == {"a": 1}
    assert read_small(tmp_path / "a", most_bytes=8) == b'{"a": 1}'
    with pytest.raises(Unfit, match="8 bytes, more than 7"):
        read_small(tmp_path / "a", most_bytes=7)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(Unfit, match="a socket"):
            read_small(tmp_path / "s")
    assert MOST_BYTES > 1 << 20


def test_a_lock_that_is_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    assert not is_held(tmp_path / ".lock")
    with sole_writer(tmp_path), pytest.raises(BlobError, match="got another process"), sole_writer(tmp_path):
        pass


LONG = "n" * 256


@pytest.mark.parametrize(
    "arguments",
    [
        ["selfplay", "--evaluator", "uniform", "--out", LONG],
        ["train", "--records", ".", "--out", LONG],
        ["loop", "--out", LONG],
        ["soak", "--out", LONG],
        ["match", "random", "heuristic", "--out", LONG],
        ["publish", "--preset", "small", "--repository", LONG],
        ["publish", LONG],
        ["export", LONG],
        *([verb, "--repository", LONG] for verb in ("models", "doctor", "rollback", "serve", "tune")),
        ["unpublish", "1", "--repository", LONG],
        ["status", "--project", LONG],
        ["report", LONG],
        ["bench", "--out", LONG],
        ["loadtest", "--url", "127.0.0.1:1", "--out", LONG],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_name_that_is_too_long_costs_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("blobzero: expected ")
    assert "File name too long" in said
    assert list(tmp_path.iterdir()) == []


def test_only_errors_of_paths_and_disks_are_put_in_a_line() -> None:
    assert ", got No space left on device; free some" in fault(OSError(28, "No space left on device"))
    assert "expected to read or write b, got Is a directory" in fault(OSError(21, "Is a directory", "a", None, "b"))
    assert fault(ConnectionResetError(104, "Connection reset by peer")) == fault(TimeoutError("late")) == ""
