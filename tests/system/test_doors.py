# SPDX-License-Identifier: Apache-2.0
"""Trying the doors of a server that was started without a key file: what strangers can reach, and what they can do."""

import base64
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from clients.keys import HTTP_HEADER, find_key
from clients.triton.channel import key_metadata, open_channel
from clients.triton.protocol import grpc, service_pb2, service_pb2_grpc
from mcts_ext.contract import MODEL_NAME
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.ports import choose_ports
from serving.watch import Watch
from tests.support.tiny_model import write_repository

pytestmark = pytest.mark.triton

FAMILIES = (socket.AF_INET, socket.AF_INET6)
FOREIGN = {"Content-Type": "text/plain", "Origin": "http://elsewhere.example", "Host": "elsewhere.example"}
"""What a web page can have a browser send without being asked first."""
EVIL = {"name": "evil", "backend": "python", "input": [], "output": []}
EVIL |= {
    "input": [{"name": "x", "data_type": "TYPE_INT8", "dims": [1]}],
    "output": [{"name": "y", "data_type": "TYPE_INT8", "dims": [1]}],
    "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
}
HTTP_CALLS = {
    "load": ("POST", f"/v2/repository/models/{MODEL_NAME}/load", b"{}"),
    "unload": ("POST", f"/v2/repository/models/{MODEL_NAME}/unload", b"{}"),
    "index": ("POST", "/v2/repository/index", b""),
    "system memory": (
        "POST",
        "/v2/systemsharedmemory/region/r/register",
        b'{"key":"/x","offset":0,"byte_size":64}',
    ),
    "system memory, all away": ("POST", "/v2/systemsharedmemory/unregister", b""),
    "system memory, which": ("GET", "/v2/systemsharedmemory/status", None),
    "CUDA memory": (
        "POST",
        "/v2/cudasharedmemory/region/r/register",
        b'{"raw_handle":{"b64":"AAAA"},"device_id":0,"byte_size":64}',
    ),
    "CUDA memory, which": ("GET", "/v2/cudasharedmemory/status", None),
    "trace": ("POST", "/v2/trace/setting", b'{"trace_file":"/tmp/trace"}'),
    "trace of a model": ("POST", f"/v2/models/{MODEL_NAME}/trace/setting", b'{"trace_file":"/tmp/trace"}'),
    "trace, which": ("GET", "/v2/trace/setting", None),
    "log": ("POST", "/v2/logging", b'{"log_verbose_level":1}'),
    "log, which": ("GET", "/v2/logging", None),
}
GRPC_CALLS = {
    "load": ("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name=MODEL_NAME)),
    "unload": ("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name=MODEL_NAME)),
    "index": ("RepositoryIndex", service_pb2.RepositoryIndexRequest()),
    "system memory": (
        "SystemSharedMemoryRegister",
        service_pb2.SystemSharedMemoryRegisterRequest(name="r", key="/x", byte_size=64),
    ),
    "system memory, away": ("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest()),
    "system memory, which": ("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest()),
    "CUDA memory": (
        "CudaSharedMemoryRegister",
        service_pb2.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"0" * 64, byte_size=64),
    ),
    "CUDA memory, away": ("CudaSharedMemoryUnregister", service_pb2.CudaSharedMemoryUnregisterRequest()),
    "CUDA memory, which": ("CudaSharedMemoryStatus", service_pb2.CudaSharedMemoryStatusRequest()),
    "trace": ("TraceSetting", service_pb2.TraceSettingRequest()),
    "log": ("LogSettings", service_pb2.LogSettingsRequest()),
}


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """As every verb starts one."""
    root = tmp_path_factory.mktemp("default")
    with EmbeddedTriton(ServerConfig(write_repository(root / "models"), log_file=root / "triton.log")) as server:
        yield server
        assert server.is_alive()


@pytest.fixture(scope="module")
def with_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    root = tmp_path_factory.mktemp("with-http")
    port = choose_ports("127.0.0.1", {"http": None})["http"]
    config = ServerConfig(write_repository(root / "models"), http_port=port, log_file=root / "triton.log")
    with EmbeddedTriton(config) as server:
        yield server
        assert server.is_alive()


def ask_http(server: EmbeddedTriton, method: str, path: str, body: bytes | None, **headers: str) -> tuple[int, str]:
    """Status and body."""
    request = urllib.request.Request(f"{server.http_url}{path}", body, FOREIGN | headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def ask_grpc(url: str, method: str, request: Any, metadata: tuple[tuple[str, str], ...] = ()) -> str:
    """Nothing, or why it was refused."""
    with open_channel(url) as channel:
        try:
            getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), method)(request, metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            return str(error.details())
    return ""


def evil_code(mark: Path) -> bytes:
    return f"open({str(mark)!r}, 'w')\nclass TritonPythonModel:\n    def execute(self, requests): return []\n".encode()


# -- what can be reached ----------------------------------------------------------------------------------------------


def listening(server: EmbeddedTriton) -> set[tuple[str, int]]:
    """Where the server, and what it started, listen."""
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    states = (psutil.CONN_LISTEN, psutil.CONN_NONE)  # TCP, UDP
    sockets = [one for process in family for one in process.net_connections(kind="inet") if one.status in states]
    return {
        (one.laddr.ip.removeprefix("::ffff:"), one.laddr.port)
        for one in sockets
        if one.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
    }


def test_no_http_and_nothing_but_loopback(default: EmbeddedTriton) -> None:
    assert default.http_url is None
    assert listening(default) == set(default.doors.endpoints.values())
    assert {host for host, _ in listening(default)} == {"127.0.0.1"}
    assert {*default.doors.endpoints} == {"grpc", "metrics"}


def test_nothing_answers_at_another_address_of_the_machine(default: EmbeddedTriton, with_http: EmbeddedTriton) -> None:
    found = {one.address for addresses in psutil.net_if_addrs().values() for one in addresses if one.family in FAMILIES}
    others = {one for one in found if not one.startswith("fe80")} - {"127.0.0.1"} | {"127.0.0.2"}
    ports = {*default.doors.endpoints.values(), *with_http.doors.endpoints.values()}
    assert len(ports) == 5
    for _, port in ports:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        for host in others:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, port), timeout=5)


def test_metrics_need_no_http(default: EmbeddedTriton) -> None:
    default.infer_once(timeout_s=5)
    with urllib.request.urlopen(default.metrics_url, timeout=5) as answer:
        assert f'nv_inference_request_success{{model="{MODEL_NAME}"' in answer.read().decode()


# -- what strangers can do --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", HTTP_CALLS)
def test_control_over_http_wants_the_key(with_http: EmbeddedTriton, call: str) -> None:
    key = find_key(with_http.url, None)
    assert key is not None
    for headers in ({}, {HTTP_HEADER: ""}, {HTTP_HEADER: key[:-1]}, {HTTP_HEADER: key + "0"}):
        status, text = ask_http(with_http, *HTTP_CALLS[call], **headers)
        assert (status, "restricted" in text) == (403, True), text
    with_http.infer_once(timeout_s=5)


@pytest.mark.parametrize("call", GRPC_CALLS)
def test_control_over_grpc_wants_the_key(default: EmbeddedTriton, call: str) -> None:
    ((header, key),) = key_metadata(default.url, None)
    for metadata in ((), ((header, ""),), ((header, key[:-1]),), ((header, key + "0"),), ((HTTP_HEADER, key),)):
        assert "restricted" in ask_grpc(default.url, *GRPC_CALLS[call], metadata)
    default.infer_once(timeout_s=5)


def test_a_model_with_code_of_its_own_is_refused_over_http(with_http: EmbeddedTriton, tmp_path: Path) -> None:
    """What could be had of every server that had no key, from a web page too."""
    mark = tmp_path / "it-ran"
    files = {"file:1/model.py": base64.b64encode(evil_code(mark)).decode()}
    body = json.dumps({"parameters": {"config": json.dumps(EVIL), **files}}).encode()
    load = ("POST", "/v2/repository/models/evil/load", body)
    assert ask_http(with_http, *load)[0] == 403
    assert not mark.exists()
    key = find_key(with_http.url, None)
    assert key is not None
    status, text = ask_http(with_http, *load, **{HTTP_HEADER: key})
    assert status == 200, text
    assert mark.exists()  # the key is all that was missing


def test_a_model_with_code_of_its_own_is_refused_over_grpc(default: EmbeddedTriton, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    request = service_pb2.RepositoryModelLoadRequest(model_name="evil")
    request.parameters["config"].string_param = json.dumps(EVIL)
    request.parameters["file:1/model.py"].bytes_param = evil_code(mark)
    assert "restricted" in ask_grpc(default.url, "RepositoryModelLoad", request)
    assert not mark.exists()
    assert ask_grpc(default.url, "RepositoryModelLoad", request, key_metadata(default.url, None)) == ""
    assert mark.exists()


def test_one_servers_key_is_refused_by_another(default: EmbeddedTriton, with_http: EmbeddedTriton) -> None:
    theirs = key_metadata(with_http.url, None)
    assert theirs != key_metadata(default.url, None)
    index = service_pb2.RepositoryIndexRequest()
    assert "restricted" in ask_grpc(default.url, "RepositoryIndex", index, theirs)
    assert ask_grpc(with_http.url, "RepositoryIndex", index, theirs) == ""


# -- a body in a million chunks, of which servers have died ------------------------------------------------------------


def send_chunks(door: tuple[str, int], path: str) -> bytes:
    """What is answered to 4 MB, a byte at a time; nothing where it is hung up on."""
    head = f"POST {path} HTTP/1.1\r\nHost: triton\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with socket.create_connection(door, timeout=60) as connection:
        try:
            connection.sendall(head + b"1\r\n \r\n" * (4 << 20) + b"0\r\n\r\n")
            return connection.recv(4096)
        except ConnectionError:
            return b""


def test_what_wants_the_key_refuses_it_and_lives(with_http: EmbeddedTriton) -> None:
    answer = send_chunks(with_http.doors.endpoints["http"], f"/v2/repository/models/{MODEL_NAME}/load")
    assert answer.startswith(b"HTTP/1.1 403")
    with_http.infer_once(timeout_s=5)


@pytest.mark.parametrize("door", ["grpc", "metrics"])
def test_what_is_open_without_http_outlives_it(default: EmbeddedTriton, door: str) -> None:
    send_chunks(default.doors.endpoints[door], "/metrics")
    default.infer_once(timeout_s=5)


def test_where_http_is_on_inference_may_die_of_it_and_the_watch_cures(tmp_path: Path) -> None:
    """Triton 2.51 does die of it, and gets no more mends: one more reason why HTTP is off unless asked for."""
    port = choose_ports("127.0.0.1", {"http": None})["http"]
    config = ServerConfig(write_repository(tmp_path / "models"), http_port=port, log_file=tmp_path / "triton.log")
    with EmbeddedTriton(config) as server, Watch(server, on_event=lambda _: None, interval_s=0.2) as watch:
        if not send_chunks(server.doors.endpoints["http"], f"/v2/models/{MODEL_NAME}/infer"):
            deadline = time.monotonic() + 60
            while not watch.n_cures:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        server.infer_once(timeout_s=5)
        index = service_pb2.RepositoryIndexRequest()
        assert "restricted" in ask_grpc(server.url, "RepositoryIndex", index)
        assert ask_grpc(server.url, "RepositoryIndex", index, key_metadata(server.url, None)) == ""
