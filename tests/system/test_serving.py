# SPDX-License-Identifier: Apache-2.0
"""The embedded Triton, for real: what it answers, and what it refuses."""

import queue
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from mcts_ext import contract
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.errors import ModelNotServable, PortTaken, ServerNotInstalled, ServerStartFailed, ServingError
from serving.install import find_installation
from serving.ports import choose_ports
from tests.support.raw_client import key_headers
from tests.support.tiny_model import (
    MODEL,
    assert_answers_match,
    random_rows,
    request_input,
    traces_of,
    write_repository,
    write_version,
)


@pytest.fixture
def client(triton_server: EmbeddedTriton) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(triton_server.url)
    yield client
    client.close()


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """A repository and a log file of the test's own."""
    return ServerConfig(repository=write_repository(tmp_path / "models"), log_file=tmp_path / "triton.log")


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.triton
def test_every_request_gets_its_own_rows_answered(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[int, triton.InferResult, object]] = queue.Queue()
    sent = {i: random_rows(n, seed=i) for i, n in enumerate([1, 2, 31, 257, 1024, 3, 500, 1, 64, 1023])}
    for i, rows in sent.items():
        client.async_infer(MODEL, [request_input(rows)], lambda result, error, i=i: answers.put((i, result, error)))
    for _ in sent:
        i, answer, error = answers.get(timeout=20)
        assert error is None
        assert_answers_match(answer, sent[i], seed=1)


@pytest.mark.triton
def test_only_requested_outputs_are_sent(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput(contract.VALUE_NAME)]
    answer = client.infer(MODEL, [request_input(random_rows(2, seed=0))], outputs=wanted)
    assert [output.name for output in answer.get_response().outputs] == [contract.VALUE_NAME]


@pytest.mark.triton
def test_the_log_says_which_precision_and_why(triton_server: EmbeddedTriton) -> None:
    assert (
        "matrix products in f32, 1 threads; what is not quantized in f32 (as requested)"
        in triton_server.log_file.read_text()
    )


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.triton
def test_a_bad_request_fails_alone_in_its_dynamic_batch(tmp_path: Path) -> None:
    batching = "max_queue_delay_microseconds: 300000"
    repository = write_repository(tmp_path / "models", backend="onnxruntime", batching=batching)
    with EmbeddedTriton(ServerConfig(repository=repository, log_file=tmp_path / "log")) as server:
        client = triton.InferenceServerClient(server.url)
        damaged = request_input(random_rows(1, seed=1))
        damaged.set_shape([2**32, contract.OBSERVATION_BYTES])  # Triton lets this one through: it counts in 32 bits
        good = [random_rows(3, seed=0), random_rows(4, seed=2)]
        inputs = [request_input(good[0]), damaged, request_input(good[1])]
        answers: queue.Queue[tuple[int, triton.InferResult, InferenceServerException]] = queue.Queue()
        for i, source in enumerate(inputs):
            client.async_infer(MODEL, [source], lambda result, error, i=i: answers.put((i, result, error)))
        got = {i: (answer, error) for i, answer, error in (answers.get(timeout=10) for _ in inputs)}
        client.close()
        time.sleep(0.3)  # the statistics come a little after the answers
        assert server.n_executions(timeout_s=5) == 2  # one at the start: the three did travel together
    assert_answers_match(got[0][0], good[0], seed=1)
    assert_answers_match(got[2][0], good[1], seed=1)
    assert got[1][1].status() == "StatusCode.INVALID_ARGUMENT"
    assert "expected observation [b, 96] uint8 with b in 1..1024" in got[1][1].message()


@pytest.mark.triton
def test_a_version_with_nan_weights_is_refused_and_the_old_one_answers_on(config: ServerConfig) -> None:
    with EmbeddedTriton(config) as server:
        client = triton.InferenceServerClient(server.url)
        write_version(config.repository / MODEL, version=2, seed=2, scale=float("nan"))
        with pytest.raises(InferenceServerException, match="with 132 numbers not finite"):
            client.load_model(MODEL, headers=key_headers(server))
        rows = random_rows(5, seed=0)
        answer = client.infer(MODEL, [request_input(rows)])
        assert answer.get_response().model_version == "1"
        assert_answers_match(answer, rows, seed=1)
        write_version(config.repository / MODEL, version=3, seed=3)
        client.load_model(MODEL, headers=key_headers(server))
        answer = client.infer(MODEL, [request_input(rows)])
        assert answer.get_response().model_version == "3"
        assert_answers_match(answer, rows, seed=3)
        client.close()


@pytest.mark.triton
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda f: (f / "1" / "model.onnx").write_bytes(b"garbage"), "cannot serve .*model.onnx"),
        (lambda f: (f / "config.pbtxt").write_text("garbage"), "failed to read text proto"),
    ],
)
def test_what_can_not_be_served_is_refused_in_one_line(
    config: ServerConfig, spoil: Callable[[Path], object], why: str
) -> None:
    spoil(config.repository / MODEL)
    server = EmbeddedTriton(config)
    with pytest.raises(ServerStartFailed, match=why) as caught:
        server.start()
    assert "\n" not in str(caught.value)
    assert str(config.log_file) in str(caught.value)
    assert not server.is_alive()
    assert traces_of([server.pid], server.folder.name) == []


def test_missing_models_versions_and_configurations_are_named(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    configs = repository / MODEL / "configs"
    configs.mkdir()
    (configs / "gpu.pbtxt").touch()
    with pytest.raises(ModelNotServable, match=r"other/config\.pbtxt, got no file"):
        EmbeddedTriton(ServerConfig(repository=repository, model="other")).start()
    with pytest.raises(ModelNotServable, match=r"fast\.pbtxt, got no file; choose one of gpu"):
        EmbeddedTriton(ServerConfig(repository=repository, config_name="fast")).start()
    (repository / MODEL / "1" / "model.onnx").unlink()
    with pytest.raises(ModelNotServable, match="no version"):
        EmbeddedTriton(ServerConfig(repository=repository)).start()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(PortTaken, match=f"expected a free grpc port, got 127.0.0.1:{port}: Address already in use"):
            EmbeddedTriton(ServerConfig(repository=repository, grpc_port=port)).start()


def test_a_log_file_that_can_not_be_written_is_named(config: ServerConfig, tmp_path: Path) -> None:
    server = EmbeddedTriton(replace(config, log_file=tmp_path / "missing" / "triton.log"))
    with pytest.raises(ServingError, match=r"expected to write .*missing/triton\.log"):
        server.start()
    assert not server.folder.exists()


def test_ports_are_checked_and_differ() -> None:
    with pytest.raises(PortTaken, match="between 1 and 65535, got 70000"):
        choose_ports("127.0.0.1", {"http": 70_000})
    with pytest.raises(PortTaken, match="got 29999 twice"):
        choose_ports("127.0.0.1", {"http": 29_999, "grpc": 29_999})
    with pytest.raises(PortTaken, match="use an address of this machine"):
        choose_ports("192.0.2.1", {"http": None})
    assert len(set(choose_ports("127.0.0.1", {"http": None, "grpc": None, "metrics": None}).values())) == 3


@pytest.mark.triton
def test_a_port_lost_after_it_was_chosen_is_replaced(config: ServerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        lost = iter([holder.getsockname()[1]])

        def choose(host: str, asked: dict[str, int | None], *, hosts: dict[str, str]) -> dict[str, int]:
            chosen = choose_ports(host, asked, hosts=hosts)
            return {**chosen, "metrics": next(lost, chosen["metrics"])}

        monkeypatch.setattr("serving.doors.choose_ports", choose)
        with EmbeddedTriton(config) as server:
            server.infer_once(timeout_s=5)
            assert not server.metrics_url.endswith(f":{holder.getsockname()[1]}/metrics")


def test_a_missing_library_is_found_before_the_start(config: ServerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(find_installation(), libraries=())  # away from the wheel's libraries
    monkeypatch.setattr("serving.embedded.find_installation", lambda: found)
    with pytest.raises(ServerNotInstalled, match=r"expected libcudart.* got none on the library path"):
        EmbeddedTriton(config).start()


def test_no_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ServerNotInstalled, match=r"pip install 'blobzero\[serve\]'"):
        find_installation()


def test_nothing_can_be_asked_of_a_server_that_is_not_started(tmp_path: Path) -> None:
    server = EmbeddedTriton(ServerConfig(repository=tmp_path))
    with pytest.raises(ServingError, match="call start"):
        server.infer_once(timeout_s=1)
    assert server.cpu_seconds().server_s == 0.0
    server.stop()
