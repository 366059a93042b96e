# SPDX-License-Identifier: Apache-2.0
"""Whatever is sent to the real Triton: each wrong request has its typed error, and the next good one its answer."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from clients.address import split_url
from clients.errors import EvaluatorError, ModelNotFound, RequestRejected, RequestTimeout, ServerFailed
from clients.triton.counts import RequestCounts, RequestTotals
from clients.triton.evaluator import TritonEvaluator
from clients.triton.failures import Failure
from mcts_ext.contract import INPUT_NAME, OBSERVATION_BYTES, VALUE_NAME
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from tests.support.raw_client import RawClient, Standstill, assert_is_good, good_request, outcome
from tests.support.tiny_model import random_rows, tiny_weights, write_repository

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A server of these tests' own, so that one that died would take no other test with it."""
    root = tmp_path_factory.mktemp("robust")
    repository = write_repository(root / "models", backend=request.param)
    with EmbeddedTriton(ServerConfig(repository=repository, log_file=root / "triton.log")) as server:
        yield server
        assert server.is_alive()


@pytest.fixture(scope="module")
def client(server: EmbeddedTriton) -> Iterator[RawClient]:
    with RawClient(server.url) as client:
        client.assert_answers()
        yield client


def memory_mib(server: EmbeddedTriton) -> float:
    return float(psutil.Process(server.pid).memory_info().rss) / 2**20


# -- one wrong request ------------------------------------------------------------------------------------------------


def put(field: str, value: Any) -> Callable[[Any], object]:
    return lambda r: setattr(r, field, value)


def put_input(field: str, value: Any) -> Callable[[Any], object]:
    return lambda r: setattr(r.inputs[0], field, value)


def shape(*dims: int) -> Callable[[Any], object]:
    return lambda r: r.inputs[0].shape.__setitem__(slice(None), dims)


def rows(change: Callable[[bytes], bytes]) -> Callable[[Any], object]:
    return lambda r: r.raw_input_contents.__setitem__(0, change(r.raw_input_contents[0]))


def second_input(name: str) -> Callable[[Any], object]:
    def spoil(r: Any) -> None:
        r.inputs.add(name=name, datatype="UINT8", shape=[3, OBSERVATION_BYTES])
        r.raw_input_contents.append(r.raw_input_contents[0])

    return spoil


def no_rows(r: Any) -> None:
    shape(0, OBSERVATION_BYTES)(r)
    rows(lambda _: b"")(r)


def wrapped_rows(r: Any) -> None:
    """Triton counts rows in 32 bits: 2^32 of them are one, and only the backend sees it."""
    shape(2**32, OBSERVATION_BYTES)(r)
    rows(lambda data: data[:OBSERVATION_BYTES])(r)


def numbers(field: str, n: int) -> Callable[[Any], object]:
    def spoil(r: Any) -> None:
        del r.raw_input_contents[:]
        getattr(r.inputs[0].contents, field).extend([1] * n)

    return spoil


def shared_memory(r: Any) -> None:
    del r.raw_input_contents[:]
    r.inputs[0].parameters["shared_memory_region"].string_param = "nobody's"
    r.inputs[0].parameters["shared_memory_byte_size"].int64_param = 3 * OBSERVATION_BYTES


WRONG: dict[str, tuple[Callable[[Any], object], type[EvaluatorError], str]] = {
    "unknown model": (put("model_name", "nope"), ModelNotFound, "unknown model"),
    "no model": (put("model_name", ""), ModelNotFound, "unknown model"),
    "unknown version": (put("model_version", "7"), ModelNotFound, "version 7 is not found"),
    "version not a number": (put("model_version", "new"), RequestRejected, "should be an integral value"),
    "version negative": (put("model_version", "-1"), RequestRejected, "invalid model version"),
    "version too large": (put("model_version", "9" * 40), RequestRejected, "should be an integral value"),
    "unknown input": (put_input("name", "obs"), RequestRejected, "unexpected inference input"),
    "unnamed input": (put_input("name", ""), RequestRejected, "unexpected inference input"),
    "same input twice": (second_input(INPUT_NAME), RequestRejected, "already exists"),
    "one input more": (second_input("mask"), RequestRejected, "expected 1 inputs but got 2"),
    "no input": (lambda r: (r.ClearField("inputs"), r.ClearField("raw_input_contents")), RequestRejected, "got 0"),
    "unknown output": (lambda r: setattr(r.outputs[0], "name", "nope"), RequestRejected, "unexpected inference output"),
    "rank 0": (shape(), RequestRejected, "has no shape"),
    "rank 1": (shape(3 * OBSERVATION_BYTES), RequestRejected, "unexpected shape"),
    "rank 3": (shape(3, OBSERVATION_BYTES, 1), RequestRejected, "unexpected shape"),
    "narrow": (shape(3, OBSERVATION_BYTES - 1), RequestRejected, "unexpected shape"),
    "no columns": (shape(3, 0), RequestRejected, "unexpected shape"),
    "negative columns": (shape(3, -OBSERVATION_BYTES), RequestRejected, "unexpected shape"),
    "negative rows": (shape(-3, OBSERVATION_BYTES), RequestRejected, "byte size mismatch"),
    "no rows": (no_rows, RequestRejected, "byte size mismatch"),
    "rows beyond 31 bits": (shape(2**31, OBSERVATION_BYTES), RequestRejected, "byte size mismatch"),
    "bytes beyond 64 bits": (shape(2**59, OBSERVATION_BYTES), RequestRejected, "byte size mismatch"),
    "most rows": (shape(2**63 - 1, OBSERVATION_BYTES), RequestRejected, "byte size mismatch"),
    "least rows": (shape(-(2**63), OBSERVATION_BYTES), RequestRejected, "byte size mismatch"),
    "rows that wrap": (wrapped_rows, RequestRejected, "expected observation"),
    "another type": (put_input("datatype", "INT8"), RequestRejected, "data-type is 'INT8'"),
    "a wider type": (put_input("datatype", "FP32"), RequestRejected, "data-type is 'FP32'"),
    "strings": (put_input("datatype", "BYTES"), RequestRejected, "data-type is 'BYTES'"),
    "no such type": (put_input("datatype", "FLOAT99"), RequestRejected, "data-type is '<invalid>'"),
    "no type": (put_input("datatype", ""), RequestRejected, "data-type is '<invalid>'"),
    "a byte short": (rows(lambda data: data[:-1]), RequestRejected, "Expected 288, got 287"),
    "a byte long": (rows(lambda data: data + b"\1"), RequestRejected, "Expected 288, got 289"),
    "empty bytes": (rows(lambda data: b""), RequestRejected, "Expected 288, got 0"),
    "no bytes": (lambda r: r.ClearField("raw_input_contents"), RequestRejected, "unable to find data"),
    "a number short": (numbers("uint_contents", 287), RequestRejected, "Expected 288, got 287"),
    "numbers of another type": (numbers("fp32_contents", 288), RequestRejected, "expected datatype 'UINT8'"),
    "bytes and numbers": (
        lambda r: r.inputs[0].contents.uint_contents.extend([1] * 288),
        RequestRejected,
        "must not be specified when using raw_input_contents",
    ),
    "shared memory": (shared_memory, RequestRejected, "Unable to find shared memory region"),
    "parameter of another type": (
        lambda r: setattr(r.parameters["priority"], "string_param", "high"),
        RequestRejected,
        "invalid value type for 'priority'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_refused_by_type_and_the_next_good_one_answered(client: RawClient, case: str) -> None:
    spoil, kind, words = WRONG[case]
    request = good_request()
    spoil(request)
    began = time.monotonic()
    assert_refused(client.ask(request.SerializeToString()), kind, words)
    assert time.monotonic() - began < 2.0
    client.assert_answers()


def assert_refused(found: bytes | Failure, kind: type[EvaluatorError], words: str) -> None:
    """A failure of this kind, which nobody repeats, and one line for people."""
    assert isinstance(found, Failure), "it was answered"
    assert (found.kind, found.may_pass) == (kind, False), found
    assert words in found.reason
    assert "\n" not in str(found.error(url="here", model="blobnet"))


def test_a_batch_over_the_maximum(client: RawClient) -> None:
    assert_refused(client.ask(good_request(1025).SerializeToString()), RequestRejected, "must be <= 1024")
    client.assert_answers(1024)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", ModelNotFound),  # which is a request of nothing
        (b"\xff" * 500, RequestRejected),
        (good_request().SerializeToString()[:-20], RequestRejected),
        (b"\x3a" + b"\xff" * 9 + b"\x01" + b"rows", RequestRejected),  # a tensor of 2^64 bytes
    ],
    ids=["nothing", "noise", "torn off", "a length that is none"],
)
def test_bytes_that_are_no_request(client: RawClient, data: bytes, kind: type[EvaluatorError]) -> None:
    found = client.ask(data)
    assert isinstance(found, Failure)
    assert (found.kind, found.may_pass) == (kind, False), found
    client.assert_answers()


def test_an_unknown_method(client: RawClient) -> None:
    found = client.ask(b"", method="/inference.GRPCInferenceService/Think")
    assert isinstance(found, Failure)
    assert (found.kind, found.may_pass) == (ServerFailed, False)
    client.assert_answers()


def test_a_huge_request(server: EmbeddedTriton, client: RawClient) -> None:
    """256 MiB come in, are refused, and others are answered meanwhile."""
    request = good_request()
    request.raw_input_contents[0] = bytes(256 << 20)
    call = client.send(request.SerializeToString(), timeout_s=60)
    with RawClient(server.url) as other:
        while not call.done():
            assert other.assert_answers() < 5.0
    assert_refused(outcome(call), RequestRejected, "Expected 288, got 268435456")
    client.assert_answers()


def test_wrong_requests_in_a_dynamic_batch_fail_alone(server: EmbeddedTriton, client: RawClient) -> None:
    """Those that pass Triton and not the backend, among good ones in one batch."""
    wrong = good_request()
    wrapped_rows(wrong)
    before = server.n_executions(timeout_s=5)
    with Standstill(server):
        calls = [client.send(good_request(5).SerializeToString())]  # the backend holds it, the rest queues behind
        time.sleep(0.1)
        for i in range(30):
            sent = wrong if i % 10 == 0 else good_request(1 + i)
            calls.append(client.send(sent.SerializeToString()))
        time.sleep(0.2)
    found = [outcome(call) for call in calls[1:]]
    for i, answer in enumerate(found):
        if i % 10 == 0:
            assert_refused(answer, RequestRejected, "expected observation [b, 96] uint8 with b in 1..1024")
        else:
            assert isinstance(answer, bytes), answer
            assert_is_good(answer, 1 + i)
    time.sleep(0.3)  # the statistics come a little after the answers
    assert server.n_executions(timeout_s=5) - before <= 4
    client.assert_answers()


def test_wrong_requests_that_overfill_a_batch_cost_our_client_a_repeat(
    server: EmbeddedTriton, client: RawClient
) -> None:
    """Each of them counts as 96 rows: twelve make Triton's Python backend fail a whole batch before ours sees it."""
    wrong = good_request()
    wrapped_rows(wrong)
    counts = RequestCounts()
    batch = random_rows(5, seed=5)
    with TritonEvaluator(server.url, counts=counts) as evaluator:
        with Standstill(server):
            calls = [client.send(good_request(5).SerializeToString())]
            time.sleep(0.1)
            calls += [client.send(wrong.SerializeToString()) for _ in range(12)]
            evaluator.submit(batch, tag=7)
            time.sleep(0.2)
        assert isinstance(outcome(calls[0]), bytes)
        assert all(isinstance(outcome(call), Failure) for call in calls[1:])
        tag, found = evaluator.wait(20)
    assert tag == 7
    np.testing.assert_allclose(found.values, batch.astype(np.float32) @ tiny_weights(1)[VALUE_NAME], rtol=1e-4)
    assert RequestTotals.of(counts).failures["ServerFailed"] == 1


# -- callers that go away ---------------------------------------------------------------------------------------------


def cancelled(client: RawClient) -> list[Any]:
    calls = [client.send(good_request(64).SerializeToString()) for _ in range(100)]
    time.sleep(0.3)
    for call in calls:
        call.cancel()
    return calls


def too_late(client: RawClient) -> list[Any]:
    calls = [client.send(good_request(64).SerializeToString(), timeout_s=0.3) for _ in range(100)]
    for call in calls:
        found = outcome(call)
        assert isinstance(found, Failure)
        assert (found.kind, found.may_pass) == (RequestTimeout, True)
    return calls


@pytest.mark.parametrize("leave", [cancelled, too_late])
def test_callers_that_leave_while_they_wait_cost_nothing(
    server: EmbeddedTriton, client: RawClient, leave: Callable[[RawClient], list[Any]]
) -> None:
    used: list[float] = []
    for _ in range(4):
        with Standstill(server):
            calls = leave(client)
        assert all(call.done() for call in calls)
        client.assert_answers()
        used.append(memory_mib(server))
    assert used[-1] - used[0] < 32.0, used


def test_evaluators_that_close_at_once_leave_the_server_alive(server: EmbeddedTriton, client: RawClient) -> None:
    """Triton 2.51 dies of calls that are cancelled as they arrive: ours let what was sent end."""
    batch = random_rows(600, seed=1)
    for _ in range(60):
        with TritonEvaluator(server.url, server_timeout_s=2.0) as evaluator:
            for tag in range(4):
                evaluator.submit(batch, tag=tag)
    assert server.is_alive()
    client.assert_answers()


# -- doors ------------------------------------------------------------------------------------------------------------


def test_thousands_of_idle_connections(server: EmbeddedTriton, client: RawClient) -> None:
    process = psutil.Process(server.pid)
    before = process.num_fds()
    doors = [split_url(server.url), split_url(server.metrics_url.split("/")[2])]
    idle = [socket.create_connection(doors[i % 2], timeout=10) for i in range(3000)]
    try:
        deadline = time.monotonic() + 20
        while process.num_fds() < before + 2900:  # they count once they are accepted
            assert time.monotonic() < deadline, process.num_fds()
            time.sleep(0.05)
        took_s = sorted(client.assert_answers() for _ in range(50))
        assert took_s[25] < 0.1, took_s
        with RawClient(server.url) as newcomer:
            assert newcomer.assert_answers() < 5.0
    finally:
        for connection in idle:
            connection.close()
    deadline = time.monotonic() + 20
    while process.num_fds() > before + 10:
        assert time.monotonic() < deadline, (before, process.num_fds())
        time.sleep(0.05)
    client.assert_answers()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 1000], ids=["HTTP/1", "noise"])
def test_the_grpc_door_closes_on_other_protocols(server: EmbeddedTriton, client: RawClient, data: bytes) -> None:
    with socket.create_connection(split_url(server.url), timeout=10) as connection:
        connection.sendall(data)
        while connection.recv(4096):
            pass
    client.assert_answers()
