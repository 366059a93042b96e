# SPDX-License-Identifier: Apache-2.0
"""Publishing to a real server: swaps, refusals, going back, and everybody killed at every step."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blobzero.cli import main
from clients.errors import ModelNotFound
from clients.evaluator import Evaluation, evaluate
from clients.selfplay.records import shard_paths
from clients.triton.evaluator import TritonEvaluator
from export.errors import ParityFailed, PublishFailed
from export.positions import sample_rows
from export.precisions import PRECISIONS
from export.publishing.candidate import ExportOptions
from export.publishing.doctor import examine
from export.publishing.publish import publish, rollback, unpublish
from export.publishing.registry import Entry, Registry
from export.publishing.repository import model_path, versions
from export.publishing.server import ModelServer
from export.publishing.transaction import STEPS
from export.variants import run_torch
from perf.bench import swap
from perf.bench.measure import Plan
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from tests.support.shards import read_shards
from training.network import create_network

pytestmark = pytest.mark.triton

ROWS = sample_rows(64, seed=8)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A server of two versions; each test leaves it and its repository in good health."""
    folder = tmp_path_factory.mktemp("publishing")
    for seed in (1, 2):
        publish(create_network("small", seed=seed), repository=folder / "models", options=ExportOptions("float32"))
    with EmbeddedTriton(ServerConfig(folder / "models", log_file=folder / "log")) as server:
        yield server


@pytest.fixture
def repository(server: EmbeddedTriton) -> Iterator[Path]:
    repository = server.config.repository
    yield repository
    assert examine(repository, url=server.url) == []
    assert ask(server).model_version == Registry(repository).published()[-1]


def ask(server: EmbeddedTriton, version: str = "") -> Evaluation:
    with TritonEvaluator(server.url, model_version=version, server_timeout_s=0.0) as evaluator:
        return evaluate(evaluator, ROWS)


def test_a_new_version_answers_and_the_one_before_can_be_pinned(server: EmbeddedTriton, repository: Path) -> None:
    before = Registry(repository).published()[-1]
    network = create_network("small", seed=3)
    report = publish(network, repository=repository, url=server.url, options=ExportOptions("float32"))
    assert report.served is not None
    assert report.served.n_rows == 4096
    assert report.served.mean_policy_kl < 1e-3
    found = ask(server)
    assert found.model_version == report.version == before + 1
    assert np.abs(found.logits - run_torch(network, ROWS).policy).max() < 0.05
    assert ask(server, str(before)).model_version == before
    for gone in (before - 1, 77):
        with pytest.raises(ModelNotFound):
            ask(server, str(gone))


def test_a_pinned_run_plays_with_its_version_and_says_so_in_its_records(
    server: EmbeddedTriton, repository: Path, tmp_path: Path
) -> None:
    pinned, current = Registry(repository).published()[-2:]
    common = ["selfplay", "--url", server.url, "--rounds", "6", "--simulations", "4", "--games", "8", "--workers", "1"]
    assert main([*common, "--out", str(tmp_path / "pinned"), "--model-version", str(pinned)]) == 0
    assert main([*common, "--out", str(tmp_path / "free")]) == 0
    for name, version in (("pinned", pinned), ("free", current)):
        records = read_shards(shard_paths(tmp_path / name / "shards"))
        assert set(records.model_version.tolist()) == {version}


def test_going_back_and_taking_out(server: EmbeddedTriton, repository: Path) -> None:
    current = ask(server)
    earlier = ask(server, str(current.model_version - 1))
    report = rollback(repository, url=server.url)
    back = ask(server)
    assert back.model_version == report.version == current.model_version + 1
    assert report.same_as == earlier.model_version
    assert np.array_equal(back.logits, earlier.logits)
    assert not np.array_equal(back.logits, current.logits)
    unpublish(repository, current.model_version, url=server.url)
    with pytest.raises(ModelNotFound):
        ask(server, str(current.model_version))
    assert ask(server).model_version == report.version


def test_answers_that_differ_are_withdrawn(
    server: EmbeddedTriton, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, known = ask(server), versions(repository)
    row = PRECISIONS["float32"]
    strict = replace(row, served=replace(row.served, value=-1.0))
    monkeypatch.setattr("export.publishing.candidate.PRECISIONS", {**PRECISIONS, "float32": strict})
    with pytest.raises(ParityFailed, match="the server's answers"):
        publish(
            create_network("small", seed=4), repository=repository, url=server.url, options=ExportOptions("float32")
        )
    assert versions(repository) == known
    after = ask(server)
    assert after.model_version == before.model_version
    assert np.array_equal(after.logits, before.logits)
    withdrawn = list(Registry(repository))[-1]
    assert withdrawn.state == "withdrawn"
    assert "value difference" in withdrawn.note


def test_a_file_that_the_server_does_not_read_is_refused_first(server: EmbeddedTriton, repository: Path) -> None:
    known = versions(repository)
    with pytest.raises(PublishFailed, match=r"expected model\.onnx, required by the server"):
        publish(
            create_network("small", seed=4),
            repository=repository,
            url=server.url,
            options=ExportOptions("float32", formats=("torchscript",)),
        )
    assert versions(repository) == known


def test_a_server_of_another_repository_is_noticed(server: EmbeddedTriton, repository: Path, tmp_path: Path) -> None:
    publish(model_path(repository, versions(repository)[-1]), repository=tmp_path)
    Registry(tmp_path).put(Entry(77, "unpublished"))
    with pytest.raises(PublishFailed, match="the version was withdrawn"):
        publish(create_network("small", seed=4), repository=tmp_path, url=server.url)
    assert versions(tmp_path) == [1]


@pytest.mark.parametrize("step", ["load", "ask", "mark"])
def test_a_server_killed_in_the_middle(
    server: EmbeddedTriton, repository: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.publishing.transaction.COMEBACK_S", 0.5)
    before, known = ask(server), versions(repository)

    def kill(at: str) -> None:
        if at == step:
            os.kill(server.pid, signal.SIGKILL)

    source = model_path(repository, known[-1])
    if step == "mark":  # the server had answered: it is published, and served once there is a server again
        report = publish(source, repository=repository, url=server.url, on_step=kill)
        server.restart()
        assert ask(server).model_version == report.version
        return
    with pytest.raises(PublishFailed):
        publish(source, repository=repository, url=server.url, on_step=kill)
    assert versions(repository) == known
    server.restart()
    after = ask(server)
    assert (after.model_version, after.logits.tolist()) == (before.model_version, before.logits.tolist())


KILLED = """
import os, signal, sys
from pathlib import Path
from export.publishing.publish import publish
step, source, repository, url = sys.argv[1:]
if step == "replace":  # in the middle of writing the registry
    Path.replace = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
def kill(at):
    if at == step:
        os.kill(os.getpid(), signal.SIGKILL)
publish(Path(source), repository=Path(repository), url=url, keep=3, on_step=kill)
"""


@pytest.mark.parametrize("step", [*STEPS, "replace"])
def test_a_command_killed_at_any_step_is_mended_by_its_repetition(
    server: EmbeddedTriton, repository: Path, step: str
) -> None:
    before, known = ask(server), versions(repository)
    source = model_path(repository, known[-1])
    command = [sys.executable, "-c", KILLED, step, str(source), str(repository), server.url]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert set(known) <= set(versions(repository))
    assert ask(server).model_version in (before.model_version, before.model_version + 1)
    found = examine(repository, url=server.url)
    assert all("--mend" in finding.mend for finding in found)
    assert bool(found) == (step not in ("lock", "mend", "export"))  # which change nothing
    report = publish(source, repository=repository, url=server.url, keep=3)
    assert ask(server).model_version == report.version
    assert versions(repository)[-1] == report.version
    assert len(versions(repository)) == 3


def test_swaps_under_load_lose_nothing(tmp_path: Path) -> None:
    plan = Plan(quick=True, say=lambda text: None, out=tmp_path)
    found = swap.run(plan, swaps=1, rows=64, preset="small").to_json()
    assert found["failed_requests"] == found["mixed_answers"] == found["older_after_newer"] == 0
    assert [point["version"] for point in found["points"]] == [3]
    assert all(0 < point["live_s"] < 60 and 0 < point["stall_s"] < 60 for point in found["points"])


def test_states_tell_what_is_loaded(server: EmbeddedTriton, repository: Path) -> None:
    with ModelServer(server.url) as control:
        ready = {version for version, state in control.states().items() if state == "READY"}
        assert ready == set(Registry(repository).published()[-2:])
