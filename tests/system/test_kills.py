# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at random moments to every kind of process of a run: nothing lost, doubled or left behind.

```
selfplay (parent) ── worker, worker
                  └─ guardian ── server ── stub
```
The schedule is drawn from a fixed seed. BLOBZERO_KILLS=30 runs more of it than the one kill of each kind.
"""

import contextlib
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from clients.selfplay.records import shard_paths
from tests.support.shards import read_shards
from tests.support.tiny_model import write_repository

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timeout(1800)]
ROUNDS = 1500
OUTLIVES_S = 2.0
ROLES = ("parent", "worker", "server", "guardian", "stub")
N_KILLS = int(os.environ.get("BLOBZERO_KILLS", len(ROLES)))
LONGEST_S = 8.0
"""From a start, or the kill before, to the next kill: the start of a run takes some four."""


class Run:
    """A `blobzero selfplay` with a server of its own, in its folder; started again it goes on."""

    def __init__(self, folder: Path, repository: Path, *, seed: int) -> None:
        self.out = folder / f"run-{seed}"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.said = folder / f"run-{seed}.txt"
        self.command = [
            sys.executable, "-m", "blobzero.cli", "selfplay", "--repository", str(repository), "--out", str(self.out),
            "--workers", "2", "--games", "32", "--rounds", str(ROUNDS), "--determinizations", "2",
            "--simulations", "24", "--shard-seconds", "0.3", "--seed", str(seed),
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        environment = os.environ | {"TMPDIR": str(self.temporary)}
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(self.command, env=environment, stdout=said, stderr=said)

    def is_over(self) -> bool:
        return self.process.poll() is not None

    def family(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def find(self, role: str) -> psutil.Process | None:
        """One process of a role that runs now."""
        for process in self.family():
            try:
                if role_of(process, self.process.pid) == role and process.status() != psutil.STATUS_ZOMBIE:
                    return process
            except psutil.NoSuchProcess:
                continue
        return None


def role_of(process: psutil.Process, parent: int) -> str:
    if process.pid == parent:
        return "parent"
    words = process.cmdline()
    if "clients.selfplay.worker" in words:
        return "worker"
    if any(word.endswith("guardian.py") for word in words):
        return "guardian"
    if "python_backend_stub" in "".join(words[:1]):
        return "watch" if process.name() == "blobzero-watch" else "stub"
    return "server" if process.name() == "tritonserver" else "other"


def offspring(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def stubs_below(process: psutil.Process) -> set[int]:
    """Pids of the backend processes below it; one may end while it is looked at."""
    found = set()
    for child in offspring(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "stub" in child.name():
                found.add(child.pid)
    return found


def left_of(processes: list[psutil.Process]) -> list[str]:
    """Those that still run."""
    found = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
        except psutil.NoSuchProcess:
            continue
    return found


def assert_whole(run: Run) -> None:
    """Every round is there, with every decision once."""
    records = read_shards(shard_paths(run.out / "shards"))
    assert np.unique(records.round).tolist() == list(range(ROUNDS))
    pairs = set(zip(records.round.tolist(), records.decision.tolist(), strict=True))
    assert len(pairs) == len(records.round)


def assert_nothing_left(run: Run, seen: set[psutil.Process]) -> None:
    assert left_of(list(seen)) == []
    names = set(re.findall(r"blobzero-triton-\w+", (run.out / "logs" / "triton.log").read_text(errors="replace")))
    assert names
    assert [str(path) for name in names for path in Path("/dev/shm").glob(f"{name}*")] == []
    assert left_in(run.temporary) == []


def left_in(temporary: Path) -> list[Path]:
    """What lies there, but for the folder of drawn keys: that is the user's, and stays; a key in it counts."""
    return [path for path in temporary.rglob("*") if path.name != f"blobzero-{os.geteuid()}"]


def test_killed_at_random_moments(tmp_path: Path) -> None:
    draw = random.Random(20)
    repository = write_repository(tmp_path / "models")
    targets = [role for _ in range(-(-N_KILLS // len(ROLES))) for role in draw.sample(ROLES, len(ROLES))][:N_KILLS]
    seen: set[psutil.Process] = set()
    seed, n_starts = 0, 1
    run = Run(tmp_path, repository, seed=seed)
    for role in targets:
        moment = time.monotonic() + draw.uniform(0.0, LONGEST_S)
        while True:
            seen |= set(run.family())
            if run.is_over():  # done, or the server was killed while it started
                if run.process.returncode == 0:
                    assert_whole(run)
                    assert_nothing_left(run, seen)
                    seed += 1
                    run = Run(tmp_path, repository, seed=seed)
                else:
                    n_starts += 1
                    run.start()
                moment = time.monotonic() + draw.uniform(0.0, LONGEST_S)
            target = run.find(role) if time.monotonic() >= moment else None
            if target is not None:
                break
            time.sleep(0.02)
        children = offspring(target)
        target.kill()
        killed = time.monotonic()
        print(f"killed {role} {target.pid}, {len(children)} below it")
        if role == "parent":
            run.process.wait()
        while left := left_of(children):
            assert time.monotonic() - killed < OUTLIVES_S, f"outlived the {role}: {left}"
            time.sleep(0.02)
        print(f"  none of them left after {time.monotonic() - killed:.2f} s")
        if role == "parent":
            assert left_in(run.temporary) == []
            n_starts += 1
            run.start()
    deadline = time.monotonic() + 240.0
    while run.process.poll() != 0:
        assert time.monotonic() < deadline
        seen |= set(run.family())
        if run.is_over():
            n_starts += 1
            run.start()
        time.sleep(0.05)
    assert_whole(run)
    assert_nothing_left(run, seen)
    assert n_starts <= 2 * len(targets) + 1  # else it does not end, killed or not
    for text in tmp_path.glob("run-*.txt"):
        assert "Traceback" not in text.read_text(), text.read_text()[-3000:]


def test_parent_and_guardian_killed_at_once(tmp_path: Path) -> None:
    """Nobody is left to clean up: the processes end all the same, and three things stay (docs/operating.md)."""
    run = Run(tmp_path, write_repository(tmp_path / "models"), seed=0)
    while not any((run.out / "shards").glob("*")):  # from the first shard on, the stub has read its model
        assert not run.is_over()
        time.sleep(0.05)
    assert run.find("stub") is not None
    assert run.find("worker") is not None
    family, guardian = run.family(), run.find("guardian")
    assert guardian is not None
    guardian.suspend()  # so that it does not see the parent go
    run.process.kill()
    guardian.kill()
    run.process.wait()
    killed = time.monotonic()
    while left := left_of(family):
        assert time.monotonic() - killed < OUTLIVES_S, left
        time.sleep(0.02)
    (folder,) = run.temporary.glob("blobzero-triton-*")
    for path in Path("/dev/shm").glob(f"{folder.name}*"):
        path.unlink()
