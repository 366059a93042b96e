# SPDX-License-Identifier: Apache-2.0
"""One writer per folder: who comes second is told who is there, and a lock is gone with its process."""

import errno
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from clients import lock
from clients.lock import LOCK, WORKERS_LOCK, FolderBusy, FolderUnwritable, sole_writer, sole_writer_of, worker_in
from clients.selfplay.records import shard_paths
from tests.support.recorded import record
from tests.support.shards import read_keys

ROOT = Path(__file__).parents[2]
SELFPLAY = ["selfplay", "--evaluator", "uniform", "--workers", "1", "--games", "16", "--simulations", "4"]
ENDLESS = [*SELFPLAY, "--rounds", "1000000", "--shard-seconds", "0.2", "--seed", "3"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "blobzero.cli", *arguments]


def second(*arguments: str) -> str:
    """What somebody is told who comes second: one line, and status 1."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@contextmanager
def running(folder: Path, *arguments: str, until: str) -> Iterator[subprocess.Popen[str]]:
    """A command that has left a file by this pattern."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob(until)):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def assert_holder(line: str, process: subprocess.Popen[str], verb: str) -> None:
    assert line.startswith("blobzero: expected no other writer of ")
    assert f"got process {process.pid} on {platform.node()} since 20" in line
    assert f"-m blobzero.cli {verb}" in line
    assert "choose another --out" in line


def resume(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.resume()


def assert_all_once(shards: Path) -> int:
    """No decision stands twice; the number of rounds."""
    keys = Counter[tuple[int, int]]()
    for path in shard_paths(shards):
        keys.update(zip(*(column.tolist() for column in read_keys(path)), strict=True))
    assert not [key for key, n in keys.items() if n > 1]
    return len({number for number, _ in keys})


def test_the_second_run_in_a_folder_is_told_who_is_there(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with running(out, *ENDLESS, "--out", str(out), until="shards/*.parquet") as first:
        assert_holder(second(*ENDLESS, "--out", str(out)), first, "selfplay")
        n_shards = len(shard_paths(out / "shards"))
        deadline = time.monotonic() + 30
        while len(shard_paths(out / "shards")) == n_shards:  # the first plays on
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=30) == 130
    assert_all_once(out / "shards")
    assert not list(out.glob(".*"))


@pytest.mark.slow
def test_a_run_waits_for_the_workers_of_one_that_was_killed(tmp_path: Path) -> None:
    """A worker that stands still writes what it has finished once it goes on: nobody may have played that meanwhile."""
    out = tmp_path / "run"
    flags = [*ENDLESS, "--shard-seconds", "1", "--out", str(out)]
    with ExitStack() as stack, running(out, *flags, until="shards/*.parquet") as first:
        (worker,) = (one for one in psutil.Process(first.pid).children() if "clients.selfplay.worker" in one.cmdline())
        stack.callback(resume, worker)
        time.sleep(0.5)
        worker.suspend()
        first.kill()
        first.wait()
        n_shards = len(shard_paths(out / "shards"))
        with running(out, *flags, until=LOCK) as then:
            time.sleep(4)  # twice as long as a lock is asked for where no workers are
            assert len(shard_paths(out / "shards")) == n_shards
            worker.resume()
            deadline = time.monotonic() + 30
            while len(shard_paths(out / "shards")) < n_shards + 3:
                assert then.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            then.send_signal(signal.SIGINT)
            then.wait(timeout=30)
    assert_all_once(out / "shards")


def test_a_lock_is_gone_with_its_process_and_not_held_by_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; from pathlib import Path; from clients.lock import sole_writer\n"
        "with sole_writer(Path(sys.argv[1])):\n"
        "    print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(FolderBusy, match=f"got process {holder.pid} on"), sole_writer(tmp_path):
            pass
        holder.kill()
        holder.communicate()
        os.kill(child, 0)
        began = time.monotonic()
        with sole_writer(tmp_path):
            assert time.monotonic() - began < 0.5
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)
    assert not list(tmp_path.iterdir())


def test_a_writer_waits_for_the_workers_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WORKERS_END_S", 0.3)
    with ExitStack() as workers:
        for _ in range(2):
            workers.enter_context(worker_in(tmp_path))
        with pytest.raises(FolderBusy, match="got workers of an earlier run"), sole_writer(tmp_path):
            pass
        assert not (tmp_path / LOCK).exists()
    with sole_writer(tmp_path), worker_in(tmp_path), sole_writer_of(tmp_path / "file"), sole_writer(tmp_path / "inner"):
        assert (tmp_path / WORKERS_LOCK).exists()
    assert not list(tmp_path.glob(".*"))


def test_a_folder_in_which_nothing_was_written_is_not_left_behind(tmp_path: Path) -> None:
    with sole_writer(tmp_path / "a" / "new"):
        pass
    assert not (tmp_path / "a" / "new").exists()
    (tmp_path / "old").mkdir()
    for folder in ("old", "used"):
        with sole_writer(tmp_path / folder):
            (tmp_path / "used").mkdir(exist_ok=True)
            (tmp_path / "used" / "file").touch()
    assert (tmp_path / "old").is_dir()
    assert (tmp_path / "used" / "file").exists()


def test_of_many_that_come_at_once_one_writes(tmp_path: Path) -> None:
    """Each holds the lock in its turn, for a moment, and removes its file: no two at once."""
    code = (
        "import sys; from pathlib import Path; from clients import lock; lock.ENDING_S = 60\n"
        "for _ in range(20):\n"
        "    with lock.sole_writer(Path(sys.argv[1])):\n"
        "        path = Path(sys.argv[1]) / 'number'\n"
        "        path.write_text(str(int(path.read_text() or 0) + 1) if path.exists() else '1')"
    )
    line = [sys.executable, "-c", code, str(tmp_path)]
    for process in [subprocess.Popen(line, cwd=ROOT) for _ in range(5)]:
        assert process.wait(timeout=120) == 0
    assert (tmp_path / "number").read_text() == "100"


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.ENOLCK])
def test_a_folder_that_cannot_be_locked_costs_one_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    if number == errno.ENOLCK:
        monkeypatch.setattr(lock.fcntl, "flock", refuse)
    else:
        monkeypatch.setattr(lock.os, "open", refuse)
    with pytest.raises(FolderUnwritable, match=os.strerror(number)) as error, sole_writer(tmp_path):
        pass
    assert "\n" not in str(error.value)


def test_two_matches_of_one_file_and_two_of_two(tmp_path: Path) -> None:
    play = ["match", "random", "heuristic", "--deals", "1000000", "--out"]
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    with running(tmp_path, *play, str(one), until=".one.json.lock") as first:
        time.sleep(0.3)
        assert_holder(second(*play, str(one)), first, "match")
        done = subprocess.run(command("match", "random", "heuristic", "--deals", "2", "--out", str(two)), check=False)
        assert done.returncode == 0
        assert json.loads(two.read_text())["seed"] == 0
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=30) == 130
    assert json.loads(one.read_text())["interrupted"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "two.json"]


def test_two_loops_and_what_a_killed_one_leaves(tmp_path: Path) -> None:
    """A loop that waits for rounds of others needs no server."""
    flags = ["loop", "--records", str(tmp_path / "records"), "--url", "127.0.0.1:9", "--out", str(tmp_path / "loop")]
    with running(tmp_path, *flags, until="loop/loop.json") as first:
        assert_holder(second(*flags), first, "loop")
        assert first.poll() is None
        seed = json.loads((tmp_path / "loop" / "loop.json").read_text())["seed"]
        assert first.stderr is not None
        assert first.stderr.readline() == f"seed {seed}, all in {tmp_path}/loop\n"
        first.kill()
        first.wait()
    (tmp_path / "loop" / "generations").rmdir()
    with running(tmp_path, *flags, until="loop/generations"):  # it goes on, with the seed of the folder
        assert json.loads((tmp_path / "loop" / "loop.json").read_text())["seed"] == seed
    other = second(*flags, "--seed", str(seed + 1))
    assert "expected the same seed" in other
    assert seed > 0


def test_two_trainers(tmp_path: Path) -> None:
    records, out = record(tmp_path / "run", rounds=100, kind="uniform"), tmp_path / "train"
    flags = ["train", "--records", str(records), "--out", str(out), "--preset", "small", "--steps", "1000000"]
    flags += ["--batch", "64", "--log-every", "4", "--max-reuse", "100000"]
    with running(out, *flags, until="metrics.jsonl") as first:
        assert_holder(second(*flags), first, "train")
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        first.wait(timeout=60)
    assert (out / "state.safetensors").exists()
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("selfplay", ["--evaluator", "uniform", "--rounds", "1"]),
        ("loop", []),
        ("train", ["--records", "nowhere"]),
        ("soak", ["--minutes", "1"]),
        ("loadtest", ["--url", "127.0.0.1:9"]),
        ("bench", ["engine", "--quick"]),
    ],
)
def test_every_command_with_a_folder_of_its_own_keeps_off_another_s(
    verb: str, arguments: list[str], tmp_path: Path
) -> None:
    with sole_writer(tmp_path / "out"):
        line = second(verb, *arguments, "--out", str(tmp_path / "out"))
        assert f"expected no other writer of {tmp_path}/out, got process {os.getpid()} on " in line
        assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]


def test_names_of_folders_and_seeds_are_unique_when_many_start_at_once(tmp_path: Path) -> None:
    code = (
        "from blobzero.verbs.selfplay import SelfPlayConfig; from clients.selfplay.folder import fresh_folder\n"
        "print(SelfPlayConfig().out, fresh_folder('soak'), SelfPlayConfig().seed)"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(20)]
    found = [process.communicate(timeout=120)[0].split() for process in started]
    for index, kind in enumerate(("selfplay", "soak")):
        names = [line[index] for line in found]
        assert len(set(names)) == 20
        assert all(re.fullmatch(rf"data/{kind}-\d{{8}}-\d{{6}}-[0-9a-f]{{8}}", name) for name in names)
    assert {line[2] for line in found} == {"auto"}


def test_two_runs_that_were_told_nothing_play_different_rounds_and_say_their_seeds(tmp_path: Path) -> None:
    flags = [*SELFPLAY, "--rounds", "5", "--json"]
    found = [subprocess.run(command(*flags), cwd=tmp_path, capture_output=True, text=True, check=True) for _ in "ab"]
    seeds = [json.loads(done.stdout)["config"]["seed"] for done in found]
    folders = [Path(json.loads(done.stdout)["config"]["out"]) for done in found]
    assert seeds[0] != seeds[1]
    assert folders[0] != folders[1]
    for done, seed, folder in zip(found, seeds, folders, strict=True):
        assert done.stderr.startswith(f"seed {seed}, records in {folder}\n")
        assert json.loads((tmp_path / folder / "run.json").read_text())["seed"] == seed
    go_on = command(*flags, "--rounds", "9", "--out", str(folders[0]))
    again = subprocess.run(go_on, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["config"]["seed"] == seeds[0]
    assert assert_all_once(tmp_path / folders[0] / "shards") == 9
