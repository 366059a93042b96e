# SPDX-License-Identifier: Apache-2.0
"""A connection that is dropped without a word (NAT, a host that is gone), while the server answers new ones at once."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from clients.errors import RequestTimeout
from clients.evaluator import evaluate
from clients.triton.evaluator import TritonEvaluator
from clients.triton.failures import Failure
from clients.triton.protocol import service_pb2
from clients.triton.statistics import ModelStatistics
from export.publishing.server import ModelServer
from perf.load.plan import Target, Traffic
from perf.load.sender.sharedmemory import SharedMemory
from perf.load.sender.transports import GrpcUnary
from perf.soak.proxy import Proxy
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.errors import ProbeTimeout
from serving.probe import Probe
from tests.support.tiny_model import MODEL, random_rows, tiny_weights, write_repository

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """One of its own, for what a client does to it shows in `pid`."""
    root = tmp_path_factory.mktemp("dropped")
    with EmbeddedTriton(ServerConfig(write_repository(root / "models"), log_file=root / "log")) as server:
        pid = server.pid
        yield server
        server.infer_once(timeout_s=5.0)
        assert server.pid == pid


@pytest.fixture
def proxy(server: EmbeddedTriton) -> Iterator[Proxy]:
    with Proxy(server.url) as proxy:
        yield proxy


def test_an_evaluator_loses_nothing(proxy: Proxy) -> None:
    """Of several batches in flight some are lost; the client's patience is far longer than it takes."""
    said: list[str] = []
    with TritonEvaluator(proxy.url, request_timeout_s=1.0, server_timeout_s=30.0, on_event=said.append) as evaluator:
        evaluate(evaluator, random_rows(4, seed=0))
        batches = {tag: random_rows(4 + tag, seed=tag) for tag in range(6)}
        began = time.monotonic()
        for tag, rows in batches.items():
            evaluator.submit(rows, tag=tag)
            if tag == 3:
                proxy.drop()
        answered = [evaluator.wait() for _ in batches]
        assert time.monotonic() - began < 5.0
        assert sorted(tag for tag, _ in answered) == list(batches)  # each once
        weights = tiny_weights(1)["policy"]
        for tag, answer in answered:
            np.testing.assert_allclose(answer.logits, batches[tag].astype(np.float32) @ weights, rtol=1e-4, atol=1e-4)
        for seed in range(50):  # and all is as before
            began = time.monotonic()
            evaluate(evaluator, random_rows(2, seed=seed))
            assert time.monotonic() - began < 1.0
        assert evaluator._connection.n_calls == 0
    assert [text.split()[1] for text in said] == ["does", "answers"]


def test_the_first_contact_may_meet_it_too(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.triton.evaluator._METADATA_TIMEOUT_S", 1.0)
    proxy.slow(latency_s=0.4, bytes_per_s=1e9)
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        opening = pool.submit(TritonEvaluator, proxy.url, server_timeout_s=30.0)
        while not proxy._links:
            time.sleep(0.01)
        time.sleep(0.6)  # the server's greeting has come, and the question is on its way
        proxy.drop()
        proxy.mend()
        with opening.result(timeout=20.0) as evaluator:
            assert evaluator.max_batch_size == 1024
    assert 0.9 < time.monotonic() - began < 5.0


@pytest.mark.parametrize("ask", ["statistics", "control", "probe"])
def test_who_asks_now_and_then_misses_one_answer(proxy: Proxy, ask: str) -> None:
    if ask == "statistics":
        statistics = ModelStatistics(proxy.url, model=MODEL)
        question, close, fault = partial(statistics.read, timeout_s=0.7), statistics.close, RequestTimeout
    elif ask == "control":
        control = ModelServer(proxy.url)
        question = partial(control._call, "ServerLive", service_pb2.ServerLiveRequest(), timeout_s=0.7)
        close, fault = control.close, RequestTimeout
    else:
        probe = Probe(proxy.url, model=MODEL)
        question, close, fault = partial(probe.infer, timeout_s=0.7), probe.close, ProbeTimeout
    question()
    for _ in range(3):  # time and again
        proxy.drop()
        with pytest.raises(fault):
            question()
        question()
    close()


@pytest.mark.parametrize("kind", [GrpcUnary, SharedMemory])
def test_a_load_test_loses_what_was_in_flight_and_no_more(
    server: EmbeddedTriton, proxy: Proxy, kind: type[GrpcUnary]
) -> None:
    transport = kind(Target(proxy.url, key_file=server.key_file), Traffic(rows=4, timeout=1.0))
    prepared = transport.prepare(random_rows(4, seed=0))

    def send(n: int) -> list[Failure | None]:
        ended: list[Failure | None] = []
        for _ in range(n):
            transport.send(prepared, ended.append)
        deadline = time.monotonic() + 4.0
        while len(ended) < n and time.monotonic() < deadline:
            time.sleep(0.01)
        return ended

    assert send(20) == [None] * 20
    for _ in range(3):
        proxy.drop()
        lost = {failure and failure.kind for failure in send(20)}
        assert RequestTimeout in lost <= {RequestTimeout, None}  # none over a connection that is opened now
        assert send(20) == [None] * 20
    transport.close()
