# SPDX-License-Identifier: Apache-2.0
"""Workers as real processes: the same rounds whoever plays them, and none lost or doubled when one dies."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import numpy as np
import psutil
import pytest

from clients.connect import EvaluatorConfig, Kind
from clients.selfplay.fleet import Fleet, FleetError
from clients.selfplay.records import shard_paths
from clients.selfplay.worker import WorkerConfig
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.deals import ROUNDS_APART, games_for
from mcts_ext.records import Records
from tests.support.shards import read_shards

SEED = 11
ROUNDS = DealConfig()
GAMES = DealConfig(players=(3,), cards=(2, 5), unit="game")
EITHER = pytest.mark.parametrize("deal", [ROUNDS, GAMES], ids=["rounds", "games"])


def configs(
    out: Path,
    *,
    workers: int,
    rounds: int,
    games: int = 64,
    kind: Kind = "hash",
    simulations: int = 8,
    deal: DealConfig = ROUNDS,
) -> list[WorkerConfig]:
    (out / "shards").mkdir(parents=True, exist_ok=True)
    return [
        WorkerConfig(
            index=index,
            workers=workers,
            rounds=rounds,
            seed=SEED,
            out=out,
            evaluator=EvaluatorConfig(kind=kind),
            deal=deal,
            search=SearchConfig(simulations=simulations),
            games=games,
            shard_seconds=0.2,
        )
        for index in range(workers)
    ]


def play(workers: list[WorkerConfig], *, deadline_s: float = 60.0) -> Fleet:
    """Play to the end."""
    deadline = time.monotonic() + deadline_s
    with Fleet(workers, logs=workers[0].out / "logs") as fleet:
        fleet.wait_ready()
        fleet.go()
        while not fleet.is_done:
            assert time.monotonic() < deadline, "the fleet does not end"
            fleet.poll(0.2)
    return fleet


def in_order(out: Path) -> Records:
    records = read_shards(shard_paths(out / "shards"))
    order = np.lexsort((records.decision, records.round))
    return Records(**{field.name: getattr(records, field.name)[order] for field in fields(Records)})


def assert_all_once(records: Records, rounds: int, deal: DealConfig) -> int:
    """Every round is there, and none twice; how many there are."""
    found = np.unique(records.round)
    if deal.unit == "round":
        assert found.tolist() == list(range(rounds))
    else:
        n_games, n_rounds = games_for(rounds, seed=SEED, deal=deal)
        assert len(found) == n_rounds >= rounds
        assert np.unique(found // ROUNDS_APART).tolist() == list(range(n_games))
    pairs = list(zip(records.round.tolist(), records.decision.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    return len(found)


@pytest.mark.slow
@EITHER
def test_one_worker_and_four_play_the_same_rounds(deal: DealConfig, tmp_path: Path) -> None:
    one = play(configs(tmp_path / "one", workers=1, rounds=150, deal=deal))
    play(configs(tmp_path / "four", workers=4, rounds=150, games=7, deal=deal))
    alone, together = in_order(tmp_path / "one"), in_order(tmp_path / "four")
    n_rounds = assert_all_once(alone, 150, deal)
    for field in fields(Records):
        np.testing.assert_array_equal(getattr(alone, field.name), getattr(together, field.name))
    assert one.counts["rounds"] == n_rounds
    assert one.counts["records"] == len(alone)


@pytest.mark.slow
@EITHER
def test_a_killed_worker_is_replaced_and_no_round_is_lost_or_doubled(deal: DealConfig, tmp_path: Path) -> None:
    said: list[str] = []
    workers = configs(tmp_path, workers=2, rounds=3000, games=16, deal=deal)
    with Fleet(workers, logs=tmp_path / "logs", on_event=said.append) as fleet:
        fleet.wait_ready()
        fleet.go()
        while not shard_paths(tmp_path / "shards"):
            fleet.poll(0.05)
        os.kill(fleet.pids[1], signal.SIGKILL)
        while not fleet.is_done:
            fleet.poll(0.2)
        assert fleet.n_restarts == 1
    assert said == ["worker 1 was killed by signal 9; restarting it"]
    assert_all_once(in_order(tmp_path), 3000, deal)


@pytest.mark.slow
@pytest.mark.parametrize(("within_s", "ends"), [(600.0, True), (0.0, False)])
def test_deaths_long_ago_are_forgiven(
    within_s: float, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.selfplay.fleet.MAX_RESTARTS", 1)
    monkeypatch.setattr("clients.selfplay.fleet.RESTARTS_WITHIN_S", within_s)
    workers = configs(tmp_path, workers=1, rounds=10**6, games=16)
    with Fleet(workers, logs=tmp_path / "logs") as fleet:
        fleet.wait_ready()
        fleet.go()
        for _ in range(2):
            os.kill(fleet.pids[0], signal.SIGKILL)
            before = fleet.pids[0]
            with pytest.raises(FleetError, match="2 times in 600 s") if ends and fleet.n_restarts else nullcontext():
                while fleet.pids[0] == before:
                    fleet.poll(0.1)
        assert fleet.n_restarts == (1 if ends else 2)


@pytest.mark.slow
@EITHER
def test_a_stopped_run_goes_on_where_it_stopped(deal: DealConfig, tmp_path: Path) -> None:
    workers = configs(tmp_path, workers=1, rounds=3000, deal=deal)
    with Fleet(workers, logs=tmp_path / "logs") as fleet:
        fleet.wait_ready()
        fleet.go()
        while not shard_paths(tmp_path / "shards"):
            fleet.poll(0.05)
        fleet.stop()
        while not fleet.is_done:
            fleet.poll(0.2)
    done = len(np.unique(in_order(tmp_path).round))
    assert 0 < done < 3000
    rest = play(workers)
    assert done + rest.counts["rounds"] == assert_all_once(in_order(tmp_path), 3000, deal)


def test_a_worker_that_gives_up_says_why(tmp_path: Path) -> None:
    workers = [
        WorkerConfig(
            index=0,
            workers=1,
            rounds=10,
            seed=1,
            out=tmp_path,
            evaluator=EvaluatorConfig(kind="triton", url="127.0.0.1:9", server_timeout_s=0.5),
        )
    ]
    with (
        Fleet(workers, logs=tmp_path / "logs") as fleet,
        pytest.raises(FleetError, match="expected a Triton server at 127"),
    ):
        fleet.wait_ready()


def test_a_worker_ends_when_its_fleet_is_gone(tmp_path: Path) -> None:
    config = configs(tmp_path, workers=1, rounds=10**6)[0]
    worker = subprocess.Popen(
        [sys.executable, "-m", "clients.selfplay.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(config.to_json() + "\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == '{"event": "ready"}\n'
    worker.stdin.write("go\n")
    worker.stdin.flush()
    worker.stdout.readline()
    worker.stdin.close()  # as when the fleet was killed
    assert worker.wait(timeout=10) == 0
    worker.stdout.close()


def test_a_worker_that_cannot_start_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # no interpreter starts so
    workers = configs(tmp_path, workers=1, rounds=10)
    with Fleet(workers, logs=tmp_path / "logs") as fleet, pytest.raises(FleetError, match="expected worker 0 to start"):
        fleet.wait_ready()


@pytest.mark.parametrize("twice", [False, True])
def test_a_worker_that_hangs_does_not_keep_the_fleet_from_ending(
    twice: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed after a while, at once where that is asked for; what the others have finished is written."""
    monkeypatch.setattr("clients.selfplay.fleet.STOP_TIMEOUT_S", 60.0 if twice else 2.0)
    workers = configs(tmp_path, workers=2, rounds=10**6, games=16)
    began = float("inf")
    with (
        pytest.raises(KeyboardInterrupt) if twice else nullcontext(),
        Fleet(workers, logs=tmp_path / "logs") as fleet,
    ):
        fleet.wait_ready()
        fleet.go()
        while not shard_paths(tmp_path / "shards"):
            fleet.poll(0.05)
        os.kill(fleet.pids[0], signal.SIGSTOP)
        began = time.monotonic()
        fleet.stop()
        if twice:
            raise KeyboardInterrupt
        while not fleet.is_done:
            assert time.monotonic() - began < 30.0, "the fleet does not end"
            fleet.poll(0.2)
        assert fleet.fault is not None
        assert "expected worker 0 to end within 2 s" in fleet.fault
    assert time.monotonic() - began < (5.0 if twice else 15.0)
    records = read_shards([path for path in shard_paths(tmp_path / "shards") if path.name.startswith("w001")])
    assert twice or len(np.unique(records.round)) == fleet.rounds_of_processes[1] > 0


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_a_fleet_that_cannot_start_leaves_no_worker_behind(tmp_path: Path) -> None:
    (tmp_path / "logs" / "worker-002.log").mkdir(parents=True)  # the third has nowhere to write
    before = children()
    with pytest.raises(FleetError, match=r"expected worker 2 to start, got .*use fewer --workers"):
        Fleet(configs(tmp_path, workers=3, rounds=10), logs=tmp_path / "logs")
    assert children() == before


LIMITED = """
import os, resource, subprocess, sys, threading
from pathlib import Path
from clients.selfplay.fleet import Fleet, FleetError
from clients.limits import is_of_processes
from tests.clients.selfplay.test_fleet import configs
folder = Path(sys.argv[1])
workers = configs(folder, workers=2, rounds=10)
os.chmod(folder, 0o777)
if os.getuid() == 0:  # who has no such limit
    os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    Fleet(workers, logs=folder / "logs")
except FleetError as error:
    print(error)
for start in (threading.Thread(target=print).start, lambda: subprocess.Popen(["true"])):
    try:
        start()
    except Exception as error:
        print(is_of_processes(error))
"""


def test_a_limit_of_processes_is_one_line() -> None:
    with tempfile.TemporaryDirectory() as folder:  # other users may enter no folder of pytest's
        done = subprocess.run([sys.executable, "-c", LIMITED, folder], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("expected worker 0 to start, got [Errno 11]"), done.stderr
    assert done.stdout.splitlines()[1:] == ["True", "True"]
