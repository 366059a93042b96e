# SPDX-License-Identifier: Apache-2.0
"""Self-play end to end: a network exported and published, a real Triton, real workers, records; then faults."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from clients.evaluator import evaluate
from clients.selfplay.records import finished_rounds, shard_paths
from clients.triton.evaluator import TritonEvaluator
from export.parity import Answers, Tolerance, compare
from export.precisions import PRECISIONS, SERVED
from export.publishing.candidate import ExportOptions
from export.publishing.config import config_path
from export.publishing.publish import publish
from export.variants import Precision, run_torch
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from tests.support.shards import read_shards
from training.network import BlobNet, create_network

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def network() -> BlobNet:
    return create_network("small", seed=3)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, network: BlobNet) -> Path:
    folder = tmp_path_factory.mktemp("selfplay") / "models"
    assert publish(network, repository=folder).version == 1
    return folder


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The folder of a finished run against a Triton that the command started itself."""
    out = tmp_path_factory.mktemp("played")
    done = subprocess.run(command(repository, out, "--rounds", "280"), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (out / "stdout.json").write_text(done.stdout)
    return out


def command(repository: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "blobzero.cli", "selfplay", "--repository", str(repository), "--out", str(out),
        "--workers", "2", "--games", "64", "--seed", "4", "--json", "--shard-seconds", "1", *more,
    ]  # fmt: skip


def test_everything_end_to_end(played: Path) -> None:
    summary = json.loads((played / "stdout.json").read_text())
    assert summary["rounds"] == 280
    assert summary["model_version"] == 1
    assert summary["mean_execution_rows"] > 20
    assert summary["server_cpu_s"] > 0
    assert summary["evaluations"] <= summary["leaves"] < summary["simulations"]
    assert summary["queue_ms"] > 0
    assert summary["compute_ms"] > 0
    records = read_shards(shard_paths(played / "shards"))
    assert set(records.round.tolist()) == set(range(280))
    assert len(records) == summary["records"]
    assert set(records.model_version.tolist()) == {1}
    np.testing.assert_allclose(records.policy.sum(axis=1), 1.0, atol=1e-5)


def test_nothing_is_left_running(played: Path) -> None:
    log = (played / "logs" / "triton.log").read_text()
    folder = re.search(r"/tmp/(blobzero-triton-\w+)", log)
    assert folder is not None
    running = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    assert not [line for line in running if folder[1] in " ".join(line)]
    assert not list(Path("/dev/shm").glob(f"{folder[1]}*"))


def positions(played: Path, n: int) -> NDArray[np.uint8]:
    rows = read_shards(shard_paths(played / "shards")).observation
    assert len(rows) >= n
    return rows[:n].copy()


@pytest.mark.parametrize(
    ("exported", "arithmetic", "tolerance"),
    [
        ("float32", "f32", PRECISIONS["float32"].tolerance),
        ("float32", "bf16", SERVED),
        ("int8", "f32", PRECISIONS["int8"].tolerance),
    ],
)
def test_the_served_network_answers_what_pytorch_answers(
    exported: Precision, arithmetic: str, tolerance: Tolerance, played: Path, network: BlobNet, tmp_path: Path
) -> None:
    rows = positions(played, 4096)
    publish(network, repository=tmp_path, options=ExportOptions(precision=exported))
    path = config_path(tmp_path)
    path.write_text(path.read_text().replace('string_value: "auto"', f'string_value: "{arithmetic}"'))
    with (
        EmbeddedTriton(ServerConfig(tmp_path, log_file=tmp_path / "log")) as server,
        TritonEvaluator(server.url) as ours,
    ):
        answer = evaluate(ours, rows)
    products = "int8" if exported == "int8" else arithmetic
    log = (tmp_path / "log").read_text()
    assert f"matrix products in {products}, " in log
    assert f"what is not quantized in {arithmetic} (as requested" in log
    report = compare(run_torch(network, rows), Answers(answer.logits, answer.values))
    assert report.n_rows == 4096
    report.require(tolerance, what=f"Triton in {products}")


@pytest.fixture
def run(repository: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run too long to end by itself before something happens to it, with its first shard written."""
    process = subprocess.Popen(
        command(repository, tmp_path / "out", "--rounds", "2000", "--simulations", "8"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not shard_paths(tmp_path / "out" / "shards"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def child(parent: int, name: str) -> psutil.Process:
    return next(p for p in psutil.Process(parent).children(recursive=True) if name in " ".join(p.cmdline()))


@pytest.mark.slow
def test_workers_wait_for_a_killed_server_and_lose_nothing(run: subprocess.Popen[str], tmp_path: Path) -> None:
    child(run.pid, "bin/tritonserver").kill()
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert "does not answer" in err
    assert "answers again" in err
    assert json.loads(out)["restarts"] == 0
    records = read_shards(shard_paths(tmp_path / "out" / "shards"))
    assert finished_rounds(tmp_path / "out" / "shards") == set(range(2000))
    pairs = set(zip(records.round.tolist(), records.decision.tolist(), strict=True))
    assert len(pairs) == len(records)


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_behind_and_goes_on(
    run: subprocess.Popen[str], repository: Path, tmp_path: Path
) -> None:
    family = [run.pid, *(p.pid for p in psutil.Process(run.pid).children(recursive=True))]
    assert len(family) >= 5  # itself, guardian, server, stub, two workers
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in family):
        assert time.monotonic() < deadline, "processes outlived the run"
        time.sleep(0.1)
    done = len(finished_rounds(tmp_path / "out" / "shards"))
    again = subprocess.run(
        command(repository, tmp_path / "out", "--rounds", str(done + 50), "--simulations", "8"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["rounds"] + done >= done + 50 - 1
    assert set(range(done + 50)) <= finished_rounds(tmp_path / "out" / "shards")
