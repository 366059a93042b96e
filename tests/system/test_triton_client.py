# SPDX-License-Identifier: Apache-2.0
"""The client against the real Triton: the seam's conformance, its numbers, and a server that dies, hangs and swaps."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray

from clients.errors import (
    AnswerPending,
    ModelMismatch,
    ModelNotFound,
    RequestTimeout,
    ServerUnreachable,
)
from clients.evaluator import Evaluation, Evaluator, evaluate
from clients.triton.evaluator import TritonEvaluator
from clients.triton.statistics import ModelCounts, ModelStatistics
from mcts_ext.contract import MODEL_NAME, POLICY_NAME, VALUE_NAME
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from tests.support.conformance import EvaluatorConformance
from tests.support.models import widen
from tests.support.raw_client import key_headers
from tests.support.tiny_model import random_rows, tiny_weights, write_repository, write_version

pytestmark = pytest.mark.triton


class TestTriton(EvaluatorConformance):
    @pytest.fixture
    def evaluator(self, triton_server: EmbeddedTriton) -> Iterator[Evaluator]:
        with TritonEvaluator(triton_server.url) as evaluator:
            yield evaluator


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A server that these tests may break; each leaves it running."""
    root = tmp_path_factory.mktemp("own")
    config = ServerConfig(repository=write_repository(root / "models"), log_file=root / "triton.log")
    with EmbeddedTriton(config) as server:
        yield server


def assert_is_network(found: Evaluation, rows: NDArray[np.uint8], *, seed: int) -> None:
    weights = tiny_weights(seed)
    x = rows.astype(np.float32)
    np.testing.assert_allclose(found.logits, x @ weights[POLICY_NAME], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.values, x @ weights[VALUE_NAME], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_rows", [1, 256, 1024, 2500])
def test_answers_are_the_networks(triton_server: EmbeddedTriton, n_rows: int) -> None:
    rows = random_rows(n_rows, seed=n_rows)
    with TritonEvaluator(triton_server.url) as evaluator:
        found = evaluate(evaluator, rows)
    assert_is_network(found, rows, seed=1)
    assert found.model_version == 1


def test_a_fixed_version(triton_server: EmbeddedTriton) -> None:
    with TritonEvaluator(triton_server.url, model_version="1") as evaluator:
        assert evaluate(evaluator, random_rows(3, seed=1)).model_version == 1
    with pytest.raises(ModelNotFound, match="version 7 is not found"):
        TritonEvaluator(triton_server.url, model_version="7")


def test_an_unknown_model(triton_server: EmbeddedTriton) -> None:
    began = time.monotonic()
    with pytest.raises(ModelNotFound, match=f"expected model nope at {triton_server.url}, got .*blobzero publish"):
        TritonEvaluator(triton_server.url, model="nope")
    assert time.monotonic() - began < 5


def test_a_model_of_another_shape(own_server: EmbeddedTriton) -> None:
    folder = own_server.config.repository / "wide"
    widen(write_version(folder, version=1, seed=1), 128)
    _configure(own_server, "wide", "dims: [ 96 ]", "dims: [ 128 ]")
    with pytest.raises(ModelMismatch, match=r"expected input observation UINT8 \[96\].*got observation UINT8 \[128\]"):
        TritonEvaluator(own_server.url, model="wide")


def test_a_model_of_another_observation_version(own_server: EmbeddedTriton) -> None:
    write_version(own_server.config.repository / "newer", version=1, seed=1)
    parameter = 'parameters { key: "observation_version" value { string_value: "3" } }\n'
    _configure(own_server, "newer", "parameters {", parameter + "parameters {")
    with pytest.raises(ModelMismatch, match=r"expected observation_version 2 .*got '3'"):
        TritonEvaluator(own_server.url, model="newer")


def _configure(server: EmbeddedTriton, name: str, old: str, new: str) -> None:
    """Give another model the tiny network's configuration, but for one thing, and load it."""
    text = (server.config.repository / MODEL_NAME / "config.pbtxt").read_text()
    assert old in text
    text = text.replace(f'"{MODEL_NAME}"', f'"{name}"').replace(old, new, 1)
    (server.config.repository / name / "config.pbtxt").write_text(text)
    with triton.InferenceServerClient(server.url) as control:
        control.load_model(name, headers=key_headers(server))


def test_a_killed_server_that_comes_back_costs_no_batch(own_server: EmbeddedTriton) -> None:
    said: list[str] = []
    with TritonEvaluator(own_server.url, server_timeout_s=60, on_event=said.append) as evaluator:
        rows = [random_rows(1000, seed=seed) for seed in range(4)]
        for tag in range(4):
            evaluator.submit(rows[tag], tag=tag)
        os.kill(own_server.pid, signal.SIGKILL)
        restart = threading.Timer(1.0, own_server.restart)
        restart.start()
        for tag in range(4, 50):
            answered, found = evaluator.wait()
            assert_is_network(found, rows[answered % 4], seed=1)
            evaluator.submit(rows[tag % 4], tag=tag)
        assert len({evaluator.wait()[0] for _ in range(4)}) == 4
        restart.join()
    assert len(said) == 2, said
    assert "does not answer (UNAVAILABLE" in said[0]
    assert "answers again" in said[1]


def test_a_stopped_server_that_comes_back_costs_no_batch(own_server: EmbeddedTriton) -> None:
    """Stopping goes through "Server is stopping" and "no available versions" to no connection."""
    with TritonEvaluator(own_server.url, server_timeout_s=60) as evaluator:
        rows = random_rows(600, seed=1)
        stopped = threading.Event()

        def bounce() -> None:
            os.kill(own_server.pid, signal.SIGTERM)
            while own_server.is_alive():
                time.sleep(0.02)
            own_server.restart()
            stopped.set()

        thread = threading.Thread(target=bounce)
        thread.start()
        while not stopped.is_set():
            assert_is_network(evaluate(evaluator, rows), rows, seed=1)
        thread.join()
        assert_is_network(evaluate(evaluator, rows), rows, seed=1)


def test_a_dead_backend_process_costs_no_batch_once_someone_restarts(own_server: EmbeddedTriton) -> None:
    said: list[str] = []
    with TritonEvaluator(own_server.url, server_timeout_s=60, on_event=said.append) as evaluator:
        rows = random_rows(600, seed=2)
        for child in psutil.Process(own_server.pid).children():
            child.kill()
        restart = threading.Timer(2.0, own_server.restart)
        restart.start()
        assert_is_network(evaluate(evaluator, rows), rows, seed=1)
        restart.join()
    assert "is not healthy" in said[0]


def test_a_server_that_hangs(own_server: EmbeddedTriton) -> None:
    rows = random_rows(100, seed=3)
    with TritonEvaluator(own_server.url, request_timeout_s=0.3, server_timeout_s=0.8) as evaluator:
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(RequestTimeout):
                evaluate(evaluator, rows)
            evaluator.submit(rows, tag=5)
            with pytest.raises(AnswerPending):
                evaluator.wait(0.2)
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        tag, found = evaluator.wait()
        assert tag == 5
        assert_is_network(found, rows, seed=1)


def test_a_server_that_stays_away(own_server: EmbeddedTriton) -> None:
    rows = random_rows(100, seed=4)
    with TritonEvaluator(own_server.url, server_timeout_s=6.0) as evaluator:
        own_server.stop()
        try:
            began = time.monotonic()
            with pytest.raises(
                ServerUnreachable, match=r"expected a Triton server at .*, got .* for \d\.\d s; start one"
            ):
                evaluate(evaluator, rows)
            assert 3.0 < time.monotonic() - began < 10.0
            with pytest.raises(ServerUnreachable):
                TritonEvaluator(own_server.url, server_timeout_s=0.2)
        finally:
            own_server.restart()
        began = time.monotonic()
        assert_is_network(evaluate(evaluator, rows), rows, seed=1)
        assert time.monotonic() - began < 2.0  # gRPC alone may take longer than anyone waits


def test_a_swap_under_load_gives_whole_answers_of_one_version_each(own_server: EmbeddedTriton) -> None:
    folder = own_server.config.repository / MODEL_NAME
    seen: list[int] = []

    def swap() -> None:
        with triton.InferenceServerClient(own_server.url) as control:
            for version in range(2, 6):
                write_version(folder, version=version, seed=version)
                control.load_model(MODEL_NAME, headers=key_headers(own_server))
                time.sleep(0.2)

    with TritonEvaluator(own_server.url) as evaluator:
        thread = threading.Thread(target=swap)
        thread.start()
        rows = [random_rows(2500, seed=seed) for seed in range(3)]
        for tag in range(3):
            evaluator.submit(rows[tag], tag=tag)
        while thread.is_alive():
            tag, found = evaluator.wait()
            assert_is_network(found, rows[tag], seed=found.model_version)
            seen.append(found.model_version)
            evaluator.submit(rows[tag], tag=tag)
        thread.join()
        for _ in range(3):
            seen.append(evaluator.wait()[1].model_version)
    assert len(set(seen)) >= 4, seen
    assert seen[-1] == 5


def test_statistics_count_what_was_asked_and_outlive_a_restart(own_server: EmbeddedTriton) -> None:
    with TritonEvaluator(own_server.url) as evaluator, ModelStatistics(own_server.url, model=MODEL_NAME) as statistics:
        start = statistics.read()
        for n_rows in (10, 10, 700):
            evaluate(evaluator, random_rows(n_rows, seed=1))
        first = _read_sizes(statistics, {10: 2, 700: 1}, since=start)
        assert dict(first.batch_sizes) == {10: 2, 700: 1}
        assert (first.requests, first.executions, first.execution_rows) == (3, 3, 720)
        assert first.mean_execution_rows == 240
        assert first.failed_requests == 0
        assert 0 < first.compute_s < 3
        assert 0 < first.queue_s < 3

        own_server.stop()
        with pytest.raises(ServerUnreachable):
            statistics.read()
        own_server.restart()  # answers a probe of one row
        for _ in range(6):
            evaluate(evaluator, random_rows(30, seed=1))
        _read_when_connected(statistics)
        both = _read_sizes(statistics, {10: 2, 30: 6, 700: 1}, since=start)
        assert both.batch_sizes[30] == 6
        assert both.batch_sizes[700] == 1
        assert both.requests == both.executions >= 9


def _read_sizes(statistics: ModelStatistics, sizes: dict[int, int], *, since: ModelCounts) -> ModelCounts:
    """Triton may count a request a moment after it has answered it: read until it has counted these."""
    for _ in range(50):
        found = statistics.read() - since
        if sizes.items() <= found.batch_sizes.items():
            break
        time.sleep(0.02)
    return found


def _read_when_connected(statistics: ModelStatistics) -> ModelCounts:
    """Its channel tries to connect again twice a second, and says so meanwhile."""
    for _ in range(30):
        with suppress(ServerUnreachable):
            return statistics.read()
        time.sleep(0.1)
    return statistics.read()


def test_statistics_see_dynamic_batches(own_server: EmbeddedTriton) -> None:
    with TritonEvaluator(own_server.url) as evaluator, ModelStatistics(own_server.url, model=MODEL_NAME) as statistics:
        start = statistics.read()
        rows = random_rows(100, seed=1)
        backend = psutil.Process(own_server.pid).children()[0]
        backend.suspend()  # so that requests queue up, however fast it is
        for tag in range(60):
            evaluator.submit(rows, tag=tag)
        time.sleep(0.3)
        backend.resume()
        for _ in range(60):
            evaluator.wait()
        for _ in range(50):  # Triton may count a request a moment after it has answered it
            found = statistics.read() - start
            if found.execution_rows == 6000:
                break
            time.sleep(0.02)
    assert found.requests == 60
    assert found.execution_rows == 6000
    assert found.executions < 60
    assert found.mean_execution_rows is not None
    assert found.mean_execution_rows > 100


def test_statistics_of_nobody(triton_server: EmbeddedTriton, tmp_path: Path) -> None:
    with ModelStatistics(triton_server.url, model="nope") as statistics, pytest.raises(ModelNotFound):
        statistics.read()
    with ModelStatistics("127.0.0.1:1", model="nope") as statistics, pytest.raises(ServerUnreachable):
        statistics.read()
