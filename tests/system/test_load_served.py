# SPDX-License-Identifier: Apache-2.0
"""The load test against real servers: every transport, any model, queueing theory as a judge, faults, leftovers."""

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from clients.errors import KeyRefused, ModelMismatch
from clients.triton.channel import key_metadata, open_channel
from perf.load import Generator, Load, LoadError, NoAnswers, Patience, Target, Traffic, measure
from perf.load.plan import TransportName
from perf.load.point import DONE, INTENDED
from perf.load.sender.sharedmemory import region_prefix
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from tests.support.plain_client import closed_loop
from tests.support.python_models import write_models
from tests.support.tiny_model import random_rows, write_repository
from tests.system.test_key import KEY

from tritonclient.grpc import service_pb2, service_pb2_grpc  # isort: skip

SERVICE_S = 0.012
TRANSPORTS = get_args(TransportName)
SHORT = Patience(ramp=0.1, warmup=0.2, duration=0.8)
pytestmark = [pytest.mark.triton, pytest.mark.timing]


def target_of(server: EmbeddedTriton, **more: object) -> Target:
    return Target(server.url, metrics=server.metrics_url.split("/")[2], **more)  # type: ignore[arg-type]


def regions(server: EmbeddedTriton, key_file: Path | None = None) -> list[str]:
    with open_channel(server.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        status = stub.SystemSharedMemoryStatus(
            service_pb2.SystemSharedMemoryStatusRequest(), metadata=key_metadata(server.url, key_file)
        )
    return sorted(status.regions)


def shared_files() -> list[Path]:
    return list(Path("/dev/shm").glob("blobzero-load-*"))


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A server that takes `SERVICE_S` a request, one after the other; `foreign` is loaded beside it."""
    folder = tmp_path_factory.mktemp("sleeper")
    config = ServerConfig(write_models(folder / "models", seconds=SERVICE_S), log_file=folder / "log")
    with EmbeddedTriton(config) as server, open_channel(server.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.RepositoryModelLoad(
            service_pb2.RepositoryModelLoadRequest(model_name="foreign"), metadata=key_metadata(server.url, None)
        )
        yield server


# -- what is sent, and what is said of it -----------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_transport_agrees_with_what_the_server_counts(
    triton_server: EmbeddedTriton, transport: TransportName
) -> None:
    with Generator(target_of(triton_server), Traffic(rows=32, processes=2), transport) as generator:
        for load in (Load(concurrency=6), Load(rate=150.0)):
            point = generator.measure(load, SHORT)
            assert point.errors == {}
            assert point.server is not None
            assert point.requests_per_s * point.seconds == pytest.approx(point.server.requests, rel=0.1, abs=8)
            assert point.rows_per_s == pytest.approx(32 * point.requests_per_s)
            assert point.server.rows_per_execution >= 32
            assert point.server.queue_ms + point.server.infer_ms < point.mean_ms
            assert point.p50_ms <= point.p90_ms <= point.p99_ms <= point.max_ms
            assert point.server.cores is not None
            assert 0 < point.server.cores < 1.5 * os.cpu_count()  # type: ignore[operator]  # in short windows
            assert point.client_cores > 0
    assert regions(triton_server) == []
    assert shared_files() == []


def test_what_cannot_be_sent_is_refused_in_one_line(sleeper: EmbeddedTriton) -> None:
    with pytest.raises(ModelMismatch, match="expected input observation"):
        Generator(target_of(sleeper, model="foreign"), Traffic(rows=1))
    with pytest.raises(LoadError, match="expected at most 1024 rows"):
        Generator(target_of(sleeper), Traffic(rows=1025))


# -- is it right ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 4])
def test_it_agrees_with_nvidias_client(sleeper: EmbeddedTriton, concurrency: int) -> None:
    """In turns; the server's time rules, so the clients' own costs do not blur the comparison."""
    rates, medians = [], []
    with Generator(target_of(sleeper), Traffic(rows=64)) as generator:
        for _ in range(3):
            theirs, latencies = closed_loop(sleeper.url, random_rows(64, seed=1), concurrency=concurrency, seconds=0.8)
            ours = generator.measure(Load(concurrency=concurrency), SHORT)
            rates.append(ours.requests_per_s / theirs)
            medians.append(ours.p50_ms / 1e3 / statistics.median(latencies))
    assert statistics.median(rates) == pytest.approx(1.0, abs=0.1)
    assert statistics.median(medians) == pytest.approx(1.0, abs=0.1)


def lindley(sent: NDArray[np.float64], service_s: float) -> NDArray[np.float64]:
    """Waits in a queue before one server that takes the same time for everybody (Lindley 1952)."""
    waits = np.zeros(len(sent))
    for i, gap in enumerate(np.diff(sent), start=1):
        waits[i] = max(0.0, waits[i - 1] + service_s - gap)
    return waits


@pytest.mark.slow
def test_an_open_loop_sees_the_queue_that_theory_predicts(sleeper: EmbeddedTriton) -> None:
    with Generator(target_of(sleeper), Traffic(rows=4, seed=5, processes=1)) as generator:
        load = 0.7
        for _attempt in range(3):  # another process on the machine makes a server slower than theory has it
            alone_s = generator.measure(Load(rate=8.0), Patience(0.0, 0.0, duration=2.5)).p50_ms / 1e3
            point = generator.measure(Load(rate=load / SERVICE_S), Patience(0.0, 0.0, duration=8.0))
            answers = point.answers[point.answers[:, INTENDED].argsort()]
            measured = answers[:, DONE] - answers[:, INTENDED]
            predicted = lindley(answers[:, INTENDED], SERVICE_S) + alone_s
            if abs(measured.mean() / predicted.mean() - 1) < 0.1:
                break
    assert len(measured) > 350
    assert measured.mean() == pytest.approx(predicted.mean(), rel=0.1)
    assert np.quantile(measured, 0.9) == pytest.approx(np.quantile(predicted, 0.9), rel=0.15)
    assert np.corrcoef(measured, predicted)[0, 1] > 0.95
    # M/D/1, in the mean over all arrivals there could be: W = load D / (2 (1 - load)).
    wait_s = (measured - alone_s).mean()
    assert wait_s == pytest.approx(load * SERVICE_S / (2 * (1 - load)), rel=0.4)


@pytest.mark.slow
def test_more_than_the_server_can_do_shows_in_an_open_loop_alone(sleeper: EmbeddedTriton) -> None:
    with Generator(target_of(sleeper), Traffic(rows=4)) as generator:
        closed = generator.measure(Load(concurrency=2), SHORT)
        opened = generator.measure(Load(rate=2 * closed.requests_per_s), Patience(0.1, 0.2, duration=1.5))
    assert opened.behind
    assert opened.p99_ms > 20 * closed.p99_ms
    assert opened.requests_per_s == pytest.approx(closed.requests_per_s, rel=0.15)
    assert opened.requests == pytest.approx(2 * closed.requests_per_s * 1.5, rel=0.25)  # none left out


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_failures_are_counted_by_kind_and_the_rest_goes_on(tmp_path: Path, transport: TransportName) -> None:
    config = ServerConfig(write_models(tmp_path / "models", seconds=0.001, failing=4), log_file=tmp_path / "log")
    with EmbeddedTriton(config) as server:
        point = measure(target_of(server), Traffic(rows=4), Load(concurrency=4), SHORT, transport)
    assert set(point.errors) == {"ServerFailed"}
    n_failed = sum(point.errors.values())
    assert n_failed / (n_failed + point.requests) == pytest.approx(0.25, abs=0.05)
    assert "not this one" in point.reasons["ServerFailed"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_is_not_answered_in_time_has_failed(tmp_path: Path, transport: TransportName) -> None:
    config = ServerConfig(write_models(tmp_path / "models", seconds=1.0), log_file=tmp_path / "log")
    traffic = Traffic(rows=4, timeout=0.3)
    with EmbeddedTriton(config) as server, pytest.raises(NoAnswers, match="RequestTimeout"):
        measure(target_of(server), traffic, Load(concurrency=2), SHORT, transport)


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_killed_in_mid_test_costs_errors_and_no_more(tmp_path: Path, transport: TransportName) -> None:
    config = ServerConfig(write_repository(tmp_path / "models"), log_file=tmp_path / "log")
    with EmbeddedTriton(config) as server, Generator(target_of(server), Traffic(rows=8), transport) as generator:
        threading.Timer(1.0, lambda: os.kill(server.pid, signal.SIGKILL)).start()
        threading.Timer(1.6, server.restart).start()
        point = generator.measure(Load(concurrency=3), Patience(0.1, 0.2, duration=12.0))
        late = point.answers[:, DONE].max() - point.answers[:, DONE].min()
        if transport != "shm":  # a new server knows no regions
            assert "ServerUnreachable" in point.errors
            assert late > 5.0
        else:
            assert point.errors
        time.sleep(0.2)
    assert shared_files() == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nothing_but_failures_is_an_error(tmp_path: Path, transport: TransportName) -> None:
    config = ServerConfig(write_repository(tmp_path / "models"), log_file=tmp_path / "log")
    with EmbeddedTriton(config) as server, Generator(target_of(server), Traffic(rows=8), transport) as generator:
        server.stop()
        with pytest.raises((NoAnswers, LoadError), match=r"expected .*, got "):
            generator.measure(Load(concurrency=3), SHORT)


def test_a_killed_client_ends_the_test_and_leaves_nothing(triton_server: EmbeddedTriton) -> None:
    with Generator(target_of(triton_server), Traffic(rows=8, processes=1), "shm") as generator:
        pid = generator._clients[0].process.pid
        threading.Timer(0.8, lambda: os.kill(pid, signal.SIGKILL)).start()
        with pytest.raises(LoadError, match="a client process to go on, but it was killed by signal 9"):
            generator.measure(Load(concurrency=3), Patience(duration=5.0))
        assert any(name.startswith(region_prefix(pid)) for name in regions(triton_server))
    assert regions(triton_server) == []
    assert shared_files() == []


def test_shared_memory_brings_the_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    config = ServerConfig(write_repository(tmp_path / "models"), log_file=tmp_path / "log", key_file=tmp_path / "key")
    with EmbeddedTriton(config) as server:
        with pytest.raises((LoadError, KeyRefused), match=r"--key-file"):
            measure(target_of(server), Traffic(rows=8), Load(concurrency=2), SHORT, "shm")
        target = target_of(server, key_file=tmp_path / "key")
        assert measure(target, Traffic(rows=8), Load(concurrency=2), SHORT, "shm").errors == {}
        assert regions(server, tmp_path / "key") == []


@pytest.mark.slow
def test_ctrl_c_reports_what_there_is_and_leaves_no_process(triton_server: EmbeddedTriton, tmp_path: Path) -> None:
    command = ["loadtest", "--url", triton_server.url, "--rows", "8", "--concurrency", "2,4", "--transport", "shm"]
    process = subprocess.Popen(
        [sys.executable, "-m", "blobzero.cli", *command, "--duration", "2", "--warmup", "0", "--max-windows", "50"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (children := psutil.Process(process.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(4.0)  # in the second point
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "2 in flight" in out
    assert not any(child.is_running() for child in children)
    assert regions(triton_server) == []
