# SPDX-License-Identifier: Apache-2.0
"""Triton's other door, which is off unless asked for: wrong HTTP is refused or hung up on, and both answer on."""

import json
import socket
from collections.abc import Iterator

import pytest

from mcts_ext.contract import INPUT_NAME, MODEL_NAME, OBSERVATION_BYTES
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.ports import choose_ports
from tests.support.raw_client import RawClient
from tests.support.tiny_model import random_rows, write_repository

pytestmark = pytest.mark.triton

INFER = f"/v2/models/{MODEL_NAME}/infer"
ROWS = random_rows(3, seed=1).tobytes()
CLOSED = 0
"""Instead of a status: hung up on without a word."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    root = tmp_path_factory.mktemp("http")
    port = choose_ports("127.0.0.1", {"http": None})["http"]
    config = ServerConfig(write_repository(root / "models"), http_port=port, log_file=root / "triton.log")
    with EmbeddedTriton(config) as server:
        yield server
        assert server.is_alive()


@pytest.fixture(scope="module")
def address(server: EmbeddedTriton) -> tuple[str, int]:
    return server.doors.endpoints["http"]


def post(body: bytes, *headers: str, path: str = INFER, length: int | str | None = None) -> bytes:
    n_bytes = len(body) if length is None else length
    lines = (f"POST {path} HTTP/1.1", "Host: triton", f"Content-Length: {n_bytes}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def head(*, n_bytes: object = 3 * OBSERVATION_BYTES, shape: object = None, **fields: object) -> bytes:
    source = {
        "name": INPUT_NAME,
        "shape": [3, OBSERVATION_BYTES] if shape is None else shape,
        "datatype": "UINT8",
        "parameters": {"binary_data_size": n_bytes},
    }
    return json.dumps({"inputs": [source | fields]}).encode()


def binary(header: bytes, data: bytes = ROWS, *, header_length: int | str | None = None, path: str = INFER) -> bytes:
    length = len(header) if header_length is None else header_length
    return post(header + data, f"Inference-Header-Content-Length: {length}", path=path)


def with_data(numbers: list[object]) -> bytes:
    return json.dumps(
        {"inputs": [{"name": INPUT_NAME, "shape": [1, OBSERVATION_BYTES], "datatype": "UINT8", "data": numbers}]}
    ).encode()


def talk(address: tuple[str, int], data: bytes) -> tuple[int, bytes]:
    """Status and body of the answer; CLOSED without one."""
    with socket.create_connection(address, timeout=10) as connection, connection.makefile("rb") as answer:
        try:
            connection.sendall(data)
            line = answer.readline()
            if not line:
                return CLOSED, b""
            n_bytes = 0
            while (header := answer.readline()) not in (b"\r\n", b""):
                name, _, value = header.partition(b":")
                n_bytes = int(value) if name.lower() == b"content-length" else n_bytes
            return int(line.split()[1]), answer.read(n_bytes)
        except ConnectionError:
            return CLOSED, b""


# Triton answers 500 where its JSON reader stumbles, though the fault is the caller's.
WRONG: dict[str, tuple[bytes, int]] = {
    "broken JSON": (post(b'{"inputs":[{'), 500),
    "no JSON": (post(b"\xff" * 300), 500),
    "an array": (post(b"[]"), 500),
    "null": (post(b"null"), 500),
    "inputs of another type": (post(b'{"inputs":"x"}'), 500),
    "no shape": (post(b'{"inputs":[{"name":"observation","datatype":"UINT8","data":[1]}]}'), 500),
    "100,000 brackets": (post(b"[" * 100_000), 500),
    "nested 20,000 deep": (post(b'{"a":' * 20_000), 500),
    "data nested 3,000 deep": (
        post(with_data([]).replace(b'"data": []', b'"data":' + b"[" * 3000 + b"]" * 3000)),
        500,
    ),
    "nothing": (post(b""), 400),
    "fewer bytes announced": (binary(head(n_bytes=287)), 400),
    "more bytes announced": (binary(head(n_bytes=289)), 400),
    "a terabyte announced": (binary(head(n_bytes=2**40)), 400),
    "negative size": (binary(head(n_bytes=-1)), 500),
    "size of another type": (binary(head(n_bytes="a")), 500),
    "a byte more": (binary(head(), ROWS + b"\1"), 400),
    "huge header length": (binary(head(), header_length=10**9), 400),
    "negative header length": (binary(head(), header_length=-5), 400),
    "header length beyond 64 bits": (binary(head(), header_length=2**64), 400),
    "header length not a number": (binary(head(), header_length="abc"), 400),
    "short header length": (binary(head(), header_length=10), 500),
    "rank 1": (binary(head(shape=[288])), 400),
    "negative rows": (binary(head(shape=[-1, OBSERVATION_BYTES])), 500),
    "rows beyond 64 bits": (binary(head(shape=[2**64, OBSERVATION_BYTES])), 500),
    "rows that wrap": (binary(head(shape=[2**32, OBSERVATION_BYTES], n_bytes=96), ROWS[:96]), 400),
    "half a row": (binary(head(shape=[3.5, OBSERVATION_BYTES])), 500),
    "a batch over the maximum": (
        binary(head(shape=[1025, OBSERVATION_BYTES], n_bytes=1025 * OBSERVATION_BYTES), ROWS[:96] * 1025),
        400,
    ),
    "another type": (binary(head(datatype="FP32")), 400),
    "no such type": (binary(head(datatype="X")), 400),
    "unknown input": (binary(head(name="x")), 400),
    "unknown model": (binary(head(), path="/v2/models/nope/infer"), 404),
    "unknown version": (binary(head(), path=f"/v2/models/{MODEL_NAME}/versions/9/infer"), 404),
    "version not a number": (binary(head(), path=f"/v2/models/{MODEL_NAME}/versions/new/infer"), 404),
    "unknown path": (post(b"", path="/v2/nope"), 404),
    "numbers as words": (post(with_data(["a"] * OBSERVATION_BYTES)), 500),
    "negative numbers": (post(with_data([-1] * OBSERVATION_BYTES)), 500),
    "a number short": (post(with_data([1] * (OBSERVATION_BYTES - 1))), 500),
    "a shorter body than it is": (post(head() + ROWS, length=100), 500),
    "two lengths": (post(head() + ROWS, "Content-Length: 5"), 400),
    "a negative length": (post(b"", length=-1), CLOSED),
    "a length not a number": (post(b"", length="abc"), CLOSED),
    "not gzip": (post(b"garbage", "Content-Encoding: gzip"), 400),
    "an unknown encoding": (post(head() + ROWS, "Content-Encoding: x"), 501),
    "an unknown method": (b"BREW /v2 HTTP/1.1\r\nHost: triton\r\n\r\n", 405),
    "no HTTP": (b"\xff\x00" * 100 + b"\r\n\r\n", CLOSED),
    "chunks that are none": (
        f"POST {INFER} HTTP/1.1\r\nHost: triton\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
        CLOSED,
    ),
    "a header of a megabyte": (b"GET /v2 HTTP/1.1\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n", CLOSED),
    "a path of a megabyte": (b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n\r\n", CLOSED),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_http_is_refused_and_the_next_good_request_answered(
    server: EmbeddedTriton, address: tuple[str, int], case: str
) -> None:
    data, expected = WRONG[case]
    good = talk(address, binary(head()))
    assert good[0] == 200
    status, body = talk(address, data)
    assert status == expected, body
    if status not in (CLOSED, 405):
        assert json.loads(body)["error"]
    assert talk(address, binary(head())) == good
    assert server.is_alive()


@pytest.mark.parametrize("length", [10**10, 2**63])
def test_a_body_that_never_ends_keeps_nobody_waiting(
    server: EmbeddedTriton, address: tuple[str, int], length: int
) -> None:
    """Triton waits for the rest, and takes no memory for it before it comes."""
    with socket.create_connection(address, timeout=10) as connection, RawClient(server.url) as client:
        connection.sendall(post(head() + ROWS, length=length))
        assert client.assert_answers() < 5.0
        assert talk(address, binary(head()))[0] == 200
    assert talk(address, binary(head()))[0] == 200
