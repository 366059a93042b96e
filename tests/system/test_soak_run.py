# SPDX-License-Identifier: Apache-2.0
"""`blobzero soak` for a minute with a real server, real kills and, where one may be mounted, a full disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clients.selfplay.records import finished_rounds
from perf.soak.faults import KINDS
from perf.soak.soak import LOOK_S


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.timeout(600)
def test_every_kind_of_fault(tmp_path: Path) -> None:
    out = tmp_path / "soak"
    command = [sys.executable, "-m", "blobzero.cli", "soak", "--minutes", "0.8", "--faults", "8", "--json"]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((out / "soak.json").read_text())
    assert found["good"]
    assert found["found"] == []
    assert set(found["kinds"]) | set(found["left_out"]) == set(KINDS)
    assert set(found["left_out"]) <= {"disk-full"}
    assert len(found["faults"]) == 8
    assert all(one["recovered_s"] is not None for one in found["faults"])
    for one in found["faults"]:
        if one["kind"] in ("server-kill", "network-cut", "network-stall"):
            assert one["rate_lowest"] < 0.5 * one["rate_before"], one
    rounds = found["rounds"]
    assert (rounds["lost"], rounds["doubled"], rounds["unwritten"]) == ([], [], 0)
    assert rounds["expected"] > 1000
    assert finished_rounds(out / "shards") == set(range(rounds["expected"]))
    assert {one["role"] for one in found["memory"]} == {"soak", "worker", "server", "backend"}
    assert next(one for one in found["memory"] if one["role"] == "soak")["judged"] == 1
    said = " ".join(event["text"] for event in found["events"])
    assert "restarting it" in said
    assert "was killed by signal 9" in said
    assert (out / "timeline.png").read_bytes().startswith(b"\x89PNG")
    assert "verdict  good" in done.stderr


@pytest.mark.triton
@pytest.mark.slow
def test_what_nobody_asked_for_makes_the_verdict_bad(tmp_path: Path) -> None:
    """A worker that dies by itself and a shard that goes, while no fault is on the schedule."""
    out = tmp_path / "soak"
    command = [sys.executable, "-m", "blobzero.cli", "soak", "--minutes", "0.4", "--faults", "0"]
    with subprocess.Popen(
        [*command, "--kinds", "worker-kill", "--out", str(out), "--json"], stdout=subprocess.PIPE, text=True
    ) as soak:
        deadline = time.monotonic() + 60
        while len(shards := sorted((out / "shards").glob("*.parquet"))) < 8:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(LOOK_S)
        shards[0].unlink()
        family = psutil.Process(soak.pid).children(recursive=True)
        workers = [one for one in family if "clients.selfplay.worker" in one.cmdline()]
        workers[0].kill()
        said = soak.communicate(timeout=120)[0]
    assert soak.returncode == 1, said
    found = json.loads(said)
    assert found["unasked"] == {"worker": 1, "server": 0}
    assert found["rounds"]["vanished"] == [shards[0].name]
    assert "unexpected deaths of a worker: 1; see soak.json" in found["found"]


@pytest.mark.triton
@pytest.mark.slow
def test_an_interrupted_soak_accounts_for_what_it_played(tmp_path: Path) -> None:
    out = tmp_path / "soak"
    command = [sys.executable, "-m", "blobzero.cli", "soak", "--minutes", "5", "--kinds", "worker-kill"]
    with subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, stdout=subprocess.PIPE) as soak:
        deadline = time.monotonic() + 60
        while not list((out / "shards").glob("*.parquet")):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(soak.pid, signal.SIGTERM)
        said = soak.communicate(timeout=60)[0].decode()
    assert soak.returncode == 143, said
    found = json.loads((out / "soak.json").read_text())
    assert found["interrupted"]
    assert found["rounds"]["lost"] == found["rounds"]["doubled"] == []
    assert finished_rounds(out / "shards") == set(range(found["rounds"]["expected"]))
    assert "interrupted" in said
