# SPDX-License-Identifier: Apache-2.0
"""The doors of the server that compose.yaml starts: its own command, run with Triton out of the wheel."""

import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import yaml
from tritonclient.grpc import service_pb2, service_pb2_grpc

from clients.triton.channel import open_channel
from serving.install import find_installation
from serving.ports import choose_ports

pytestmark = pytest.mark.triton

COMPOSE = Path(__file__).parents[2] / "compose.yaml"
ELSEWHERE = "127.0.0.2"
"""An address of this host that a server on 127.0.0.1 alone does not listen on: what another container reaches."""
KEY = "0123456789abcdef"
LOAD = "/v2/repository/models/blobnet/load"


@dataclass(frozen=True)
class Server:
    http: int
    grpc: int
    metrics: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """No model, and no GPU's configuration: neither is here."""
    folder = tmp_path_factory.mktemp("compose")
    (folder / "models").mkdir()
    (folder / "admin").write_text(KEY)
    installation = find_installation()
    environment = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(map(str, installation.libraries))}
    (*shell, script) = yaml.safe_load(COMPOSE.read_text())["services"]["triton"]["command"]
    script = script.replace("$$", "$").replace("/keys/admin", str(folder / "admin"))
    script = script.replace("--model-repository=/models", f"--model-repository={folder / 'models'}")
    script = re.sub(r"--(model-config-name|load-model)=\S+", "", script)
    script = script.replace("exec tritonserver", f"exec {installation.server}")
    ports = choose_ports("0.0.0.0", {"http": None, "grpc": None, "metrics": None})
    script = f"{script.rstrip()} " + " ".join(f"--{name}-port={port}" for name, port in ports.items())
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*shell, script], env=environment, stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{ports['http']}/v2/health/live", timeout=5)
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield Server(**ports)
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(30)


def test_http_is_for_the_health_check_alone(server: Server) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http}/v2/health/live", timeout=5) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"http://{ELSEWHERE}:{server.http}/v2/health/live", timeout=5)


def test_even_there_it_loads_nothing_without_the_key(server: Server) -> None:
    def load(headers: dict[str, str]) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{server.http}{LOAD}", b"{}", headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=5)
        with caught.value as refusal:
            return refusal.code

    assert load({"Content-Type": "text/plain", "Origin": "http://elsewhere", "Host": "elsewhere"}) == 403
    assert load({"admin-key": KEY[:-1]}) == 403
    assert load({"admin-key": KEY}) != 403  # taken, and there is no such model


def test_prometheus_reaches_the_metrics_from_its_own_container(server: Server) -> None:
    with urllib.request.urlopen(f"http://{ELSEWHERE}:{server.metrics}/metrics", timeout=5) as answer:
        assert b"nv_" in answer.read()


def test_players_reach_grpc_and_load_nothing_without_the_key(server: Server) -> None:
    def load(*metadata: tuple[str, str]) -> str:
        with open_channel(f"{ELSEWHERE}:{server.grpc}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=5).live
            request = service_pb2.RepositoryModelLoadRequest(model_name="blobnet")
            with pytest.raises(grpc.RpcError) as caught:
                stub.RepositoryModelLoad(request, metadata=metadata, timeout=5)
            return str(caught.value.details())

    assert "restricted" in load()
    assert "restricted" in load(("triton-grpc-protocol-admin-key", KEY[:-1]))
    assert "restricted" not in load(("triton-grpc-protocol-admin-key", KEY))
