# SPDX-License-Identifier: Apache-2.0
"""The key that a server draws: our commands find it, it differs each time, and it goes with the server."""

import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from blobzero.cli import main
from clients.evaluator import evaluate
from clients.keys import find_key
from clients.triton.evaluator import TritonEvaluator
from clients.triton.statistics import ModelStatistics
from export.publishing.candidate import ExportOptions
from export.publishing.publish import publish
from export.publishing.server import ModelServer
from mcts_ext.errors import InvalidConfig
from perf.load.observed import ServerView
from perf.load.plan import Target
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.health import is_ready
from serving.ports import choose_ports
from tests.support.tiny_model import random_rows, write_repository
from training.network import create_network

pytestmark = pytest.mark.triton


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return ServerConfig(write_repository(tmp_path / "models"), log_file=tmp_path / "triton.log")


def wait_until(is_so: Callable[[], bool], *, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_so()


def test_it_is_new_for_each_start_and_gone_after_each(config: ServerConfig) -> None:
    found = []
    for _ in range(2):
        with EmbeddedTriton(replace(config, grpc_port=choose_ports("127.0.0.1", {"grpc": None})["grpc"])) as server:
            file = server.key_file
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
            found.append(find_key(server.url, None))
            assert found[-1] == file.read_text()
            server.restart()
            assert find_key(server.url, None) == found[-1]  # who watches it has the key already
            port = int(server.url.rpartition(":")[2])
            with (
                socket.create_server(("::1", port), family=socket.AF_INET6) as stranger,
                ModelServer(f"localhost:{port}") as control,
            ):
                control.load()
                stranger.setblocking(False)
                with pytest.raises(BlockingIOError):  # nobody came to the other address of that name
                    stranger.accept()
        assert not file.exists()
    assert None not in found
    assert found[0] != found[1]
    log = (config.log_file or Path()).read_text()
    assert not any(key is None or key in log for key in found)


OWNER = """
import sys
from pathlib import Path
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
with EmbeddedTriton(ServerConfig(Path(sys.argv[1]), log_file=Path(sys.argv[2]))) as server:
    print(server.key_file, server.url, server.pid, flush=True)
    input()
"""


@pytest.mark.parametrize("victim", ["owner", "guardian", "both"])
def test_it_is_worthless_after_a_kill(config: ServerConfig, victim: str) -> None:
    command = [sys.executable, "-c", OWNER, str(config.repository), str(config.log_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        file, url, pid = owner.stdout.readline().split()
        guardian = psutil.Process(int(pid)).parent()
        assert guardian is not None
        old = find_key(url, None)
        assert old == Path(file).read_text()
        if victim in ("guardian", "both"):
            guardian.kill()
        if victim in ("owner", "both"):
            owner.kill()
        if victim == "guardian":
            owner.communicate("\n")
    assert wait_until(lambda: not psutil.pid_exists(int(pid)))
    if victim == "both":  # nobody was left to remove it: the next server there has another
        assert find_key(url, None) == old
        with EmbeddedTriton(replace(config, grpc_port=int(url.rpartition(":")[2]))) as server:
            assert find_key(server.url, None) not in (None, old)
            with ModelServer(server.url) as control:
                control.load()
    assert wait_until(lambda: not Path(file).exists())


def test_another_servers_key_is_left_alone(config: ServerConfig) -> None:
    with EmbeddedTriton(config) as server:
        server.key_file.write_text("of-one-that-came-after")
    assert server.key_file.read_text() == "of-one-that-came-after"
    server.key_file.unlink()


def test_a_server_that_does_not_start_leaves_no_key(config: ServerConfig) -> None:
    server = EmbeddedTriton(replace(config, log_file=config.repository / "missing" / "log"))
    with pytest.raises(Exception, match="expected to write"):
        server.start()
    assert not server.key_file.exists()


@pytest.mark.slow
def test_our_commands_need_no_key_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = tmp_path / "models"
    publish(create_network("small", seed=1), repository=models, options=ExportOptions("float32"))
    command = [sys.executable, "-m", "blobzero.cli", "serve", "--repository", str(models)]
    port = str(choose_ports("127.0.0.1", {"grpc": None})["grpc"])
    command += ["--grpc-port", port, "--log-file", str(tmp_path / "log")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stderr is not None
            said = []
            while not said or "Ctrl-C" not in said[-1]:
                said.append(serving.stderr.readline())
                assert said[-1], said
            assert any(line.split() == ["gRPC", f"127.0.0.1:{port}"] for line in said)
            assert not any("HTTP" in line for line in said)
            common = ["--repository", str(models), "--url", f"127.0.0.1:{port}"]
            assert main(["publish", "--preset", "small", "--seed", "2", "--precision", "float32", *common]) == 0
            assert main(["models", *common]) == 0
            assert main(["rollback", *common]) == 0
            assert main(["doctor", *common]) == 0
            assert main(["doctor", "--repository", str(models), "--url", f"localhost:{port}"]) == 0
            (watch,) = [line.split()[1:] for line in said if line.split()[0] == "watch"]
            assert main([*watch[1:], "--once", "--interval", "0.1"]) == 0
            load = ["--transport", "shm", "--concurrency", "1", "--duration", "0.3", "--rows", "8"]
            assert main(["loadtest", "--url", f"127.0.0.1:{port}", *load]) == 0
        finally:
            serving.send_signal(signal.SIGINT)
            serving.wait(30)
    capsys.readouterr()


def test_ipv6_from_end_to_end(config: ServerConfig) -> None:
    port = choose_ports("::1", {"http": None})["http"]
    with EmbeddedTriton(replace(config, host="::1", metrics_host="::1", http_port=port)) as server:
        assert server.url.startswith("[::1]:")
        assert server.http_url == f"http://[::1]:{port}"
        assert is_ready(server.url, "blobnet")
        assert not is_ready(server.url, "nosuch")
        with TritonEvaluator(server.url) as evaluator:
            assert evaluate(evaluator, random_rows(3, seed=1)).model_version == 1
        with ModelServer(server.url) as control:
            assert control.states() == {1: "READY"}
        with ModelStatistics(server.url, model=config.model) as statistics:
            assert statistics.read().requests > 0
        view = ServerView(Target(server.url))
        assert view.look().cpu_s is not None
        view.close()
        assert main(["top", "--once", "--url", server.metrics_url.split("/")[2]]) == 0
        load = ["--transport", "grpc", "shm", "--concurrency", "1", "--duration", "0.3", "--rows", "8"]
        assert main(["loadtest", "--url", server.url, *load]) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_others_are_let_in_only_with_a_key_file(
    config: ServerConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    assert main(["serve", "--repository", str(config.repository), "--host", host]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"expected a --key-file with a host reachable from other machines, got {host} and none" in error
    if host == "192.0.2.1":  # no address of this machine
        return
    (tmp_path / "key").write_text("a-key-of-24-characters-00")
    with EmbeddedTriton(replace(config, host=host, key_file=tmp_path / "key")) as server:
        said = server.doors.open_to_others()
        assert said is not None
        assert f"anyone who can reach {host} has access to inference" in said
        assert "models, shared memory, trace and logging require the key" in said
        assert "metrics" not in said
        assert server.metrics_url.startswith("http://127.0.0.1:")
        assert find_key(f"127.0.0.1:{server.doors.endpoints['grpc'][1]}", None) is None


@pytest.mark.parametrize("host", ["", "nowhere.invalid", "[::1]", "127.0.0.1:80", "a" * 300])
def test_a_host_that_is_none_is_named(config: ServerConfig, host: str) -> None:
    with pytest.raises(InvalidConfig, match="expected an address or name of this machine to listen on, got"):
        EmbeddedTriton(replace(config, host=host)).start()
