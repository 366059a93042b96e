# SPDX-License-Identifier: Apache-2.0
"""How the embedded Triton ends, breaks and is cured, with real kills; and that nothing is left behind."""

import os
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as triton

from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.errors import BackendDead, ProbeFailed, ProbeTimeout, ServerStartFailed
from serving.watch import Watch
from tests.support.tiny_model import (
    MODEL,
    assert_answers_match,
    random_rows,
    request_input,
    traces_of,
    write_repository,
)


def stubs(server: EmbeddedTriton) -> list[psutil.Process]:
    """Its backend processes; below each is another, which watches over it."""
    return psutil.Process(server.pid).children()


def wait_until(is_so: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def folder_of(pid: int) -> str:
    """The name of a server's temporary folder, from its command line."""
    options = psutil.Process(pid).cmdline()
    return next(Path(o.partition("=")[2]).parent.name for o in options if o.startswith("--backend-directory="))


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """A repository and a log file of the test's own."""
    return ServerConfig(repository=write_repository(tmp_path / "models"), log_file=tmp_path / "triton.log")


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.triton
def test_stop_leaves_nothing_and_what_was_used_stays_known(config: ServerConfig) -> None:
    server = EmbeddedTriton(config)
    server.start()
    processes, folder = [server.pid, *(p.pid for p in stubs(server))], server.folder.name
    assert len(processes) == 2
    assert len(traces_of(processes, folder)) == 4  # the two, one shared memory region, the folder
    used = server.cpu_seconds()
    server.stop()
    assert traces_of(processes, folder) == []
    assert server.cpu_seconds().backend_s >= used.backend_s > 0.1
    server.stop()


@pytest.mark.triton
def test_a_temporary_log_stays_only_where_somebody_is_pointed_to_it(
    config: ServerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = replace(config, log_file=None)
    with EmbeddedTriton(config) as server:
        assert server.log_file.parent == tmp_path
    assert not list(tmp_path.glob("*.log"))
    next(config.repository.rglob("model.*")).write_text("no model")
    with pytest.raises(ServerStartFailed) as error:
        EmbeddedTriton(config).start()
    (log,) = tmp_path.glob("*.log")
    assert f"see {log}" in str(error.value)


OWNER = """
    import sys
    from pathlib import Path
    from serving.config import ServerConfig
    from serving.embedded import EmbeddedTriton, serve
    config = ServerConfig(repository=Path(sys.argv[1]), log_file=Path(sys.argv[2]))
    {body}
"""


def start_owner(config: ServerConfig, body: str) -> subprocess.Popen[str]:
    """Another process that owns a server."""
    script = textwrap.dedent(OWNER).format(body=body)
    return subprocess.Popen(
        [sys.executable, "-c", script, str(config.repository), str(config.log_file)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.triton
def test_a_killed_owner_leaves_nothing(config: ServerConfig) -> None:
    body = "s = EmbeddedTriton(config); s.start(); print(s.pid, flush=True); input()"
    with start_owner(config, body) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        pids = [pid, *(p.pid for p in psutil.Process(pid).children())]
        folder = folder_of(pid)
        assert len(traces_of(pids, folder)) == 4
        owner.kill()
    assert wait_until(lambda: traces_of(pids, folder) == []), traces_of(pids, folder)


@pytest.mark.triton
def test_a_server_that_is_suspended_is_ended_at_once(config: ServerConfig) -> None:
    """Neither the watch's question nor a polite end would be answered."""
    said: list[str] = []
    with EmbeddedTriton(config) as server, Watch(server, on_event=said.append, interval_s=0.05):
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 2.0
    assert said == []


@pytest.mark.triton
def test_serve_says_where_it_listens_and_ends_cleanly(config: ServerConfig) -> None:
    with start_owner(config, "sys.exit(serve(config))") as owner:
        assert owner.stdout is not None
        said = [owner.stdout.readline() for _ in range(6)]
        guardian = psutil.Process(owner.pid).children()[0]
        pids = [p.pid for p in (guardian, *guardian.children(recursive=True))]
        folder = folder_of(pids[1])
        owner.send_signal(signal.SIGINT)
        rest = owner.stdout.read()
    assert owner.returncode == 0, rest
    assert "gRPC     127.0.0.1:" in "".join(said)
    assert "Traceback" not in rest
    assert traces_of(pids, folder) == []


# -- faults and their cure --------------------------------------------------------------------------------------------


def kill_stub(server: EmbeddedTriton) -> None:
    stubs(server)[0].kill()


def stop_stub(server: EmbeddedTriton) -> None:
    stubs(server)[0].suspend()


def kill_server(server: EmbeddedTriton) -> None:
    os.kill(server.pid, signal.SIGKILL)


def stop_server(server: EmbeddedTriton) -> None:
    os.kill(server.pid, signal.SIGSTOP)


def kill_guardian(server: EmbeddedTriton) -> None:
    parent = psutil.Process(server.pid).parent()
    assert parent is not None
    parent.kill()


@pytest.mark.triton
def test_every_death_and_hang_is_noticed_said_and_cured(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models", n_instances=2)
    config = ServerConfig(repository=repository, log_file=tmp_path / "triton.log")
    said: queue.Queue[str] = queue.Queue()
    with (
        EmbeddedTriton(config) as server,
        Watch(server, on_event=said.put, interval_s=0.2, deadline_s=1.5),
    ):
        client = triton.InferenceServerClient(server.url)
        url, rows = server.url, random_rows(3, seed=0)
        used = server.cpu_seconds()
        for break_it, why in [  # a death may be seen first by a look at the processes or by a probe that meets it
            (kill_stub, r"a backend process of Triton has ended|runs but does not work \(Stub process"),
            (stop_stub, r"runs but does not work \(Stub process"),
            (kill_server, r"Triton has ended"),
            (stop_server, r"runs but does not work \(no response within"),
            (kill_guardian, r"Triton has ended"),
        ]:
            pids, folder = [server.pid, *(p.pid for p in stubs(server))], server.folder.name
            break_it(server)
            fault, cure = said.get(timeout=30), said.get(timeout=30)
            assert re.search(why, fault), (break_it, fault)
            assert "answers again, on the same ports" in cure
            assert wait_until(lambda pids=pids, folder=folder: traces_of(pids, folder) == []), traces_of(pids, folder)
            assert server.url == url
            assert wait_until(lambda: client.is_server_live(client_timeout=5))
            assert_answers_match(client.infer(MODEL, [request_input(rows)], client_timeout=5), rows, seed=1)
        client.close()
        now = server.cpu_seconds()
        assert now.server_s > used.server_s
        assert now.backend_s > used.backend_s
    assert said.empty()


class FakeServer:
    """Answers a watch as it is told to."""

    def __init__(self) -> None:
        self.alive = True
        self.fault: Exception | None = None
        self.restart_fault: Exception | None = None
        self.executions = 0
        self.looks = threading.Semaphore(0)
        self.n_restarts = 0
        self.dead: list[set[int]] = []  # at each look

    def is_alive(self) -> bool:
        return self.alive

    def dead_backends(self) -> set[int]:
        return self.dead.pop(0) if self.dead else set()

    def infer_once(self, *, timeout_s: float) -> None:
        self.looks.release()
        if self.fault is not None:
            raise self.fault

    def n_executions(self, *, timeout_s: float) -> int:
        self.executions += 1
        return self.executions

    def restart(self) -> None:
        self.n_restarts += 1
        self.looks.release()
        if self.restart_fault is not None:
            raise self.restart_fault
        self.alive, self.fault = True, None

    def cpu_seconds(self) -> None:
        pass


def watch_for_looks(server: FakeServer, n_looks: int) -> list[str]:
    said: list[str] = []
    with Watch(server, on_event=said.append, interval_s=0.01):
        for _ in range(n_looks):
            assert server.looks.acquire(timeout=10)
    return said


def test_a_busy_server_is_left_alone() -> None:
    server = FakeServer()
    server.fault = ProbeTimeout("no response within the deadline")
    assert watch_for_looks(server, n_looks=5) == []
    assert server.n_restarts == 0


def test_a_watch_goes_on_whatever_fails() -> None:
    server, said = FakeServer(), list[str]()

    def tell(text: str) -> None:
        said.append(text)
        raise RuntimeError(text)

    server.fault, server.restart_fault = BackendDead("closing tag '[/models/x]'"), KeyError("of a library")
    with Watch(server, on_event=tell, interval_s=0.01):
        for _ in range(4):
            assert server.looks.acquire(timeout=10)
        server.restart_fault = None
        assert wait_until(lambda: server.n_restarts > 0 and server.fault is None)
        server.fault = ValueError("not one of ours")
        assert wait_until(lambda: "the watch of Triton failed (ValueError: not one of ours); it continues" in said)
        server.fault = None
        server.alive = False
        assert wait_until(lambda: server.alive)
    assert said[0] == "Triton runs but does not work (closing tag '[/models/x]'); restarting it"
    assert said[1] == "the restart failed (KeyError: 'of a library'); retrying until it succeeds"
    assert any("Triton answers again" in text for text in said)


def test_a_backend_process_that_stays_dead_is_replaced_and_one_that_is_being_unloaded_is_not() -> None:
    server = FakeServer()
    server.dead = [{7}, set(), {8}, {9}]
    assert watch_for_looks(server, n_looks=5) == []
    server.dead = [{7}, {7, 8}]
    assert watch_for_looks(server, n_looks=3)[0] == "a backend process of Triton has ended (7); restarting it"
    assert server.n_restarts == 1


@pytest.mark.triton
@pytest.mark.slow
def test_the_death_of_one_instance_of_two_is_noticed(tmp_path: Path) -> None:
    """A probe reaches whichever is free, so it may be answered for ever by the one that lives."""
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    config = ServerConfig(write_repository(tmp_path / "models", n_instances=2), log_file=tmp_path / "triton.log")
    with EmbeddedTriton(config) as server, Watch(server, on_event=said.put, interval_s=0.5):
        for victim in range(2):
            pid = server.pid
            stubs(server)[victim].kill()
            assert wait_until(lambda pid=pid: server.pid not in (0, pid)), victim
            assert "restarting it" in said.get(timeout=10)
            assert "answers again" in said.get(timeout=10)
            assert len(stubs(server)) == 2
            assert not server.dead_backends()


def test_one_error_alone_restarts_nothing() -> None:
    server = FakeServer()
    server.fault = ProbeFailed("the model is being reloaded")
    assert watch_for_looks(server, n_looks=1) == []


def test_a_restart_that_fails_is_tried_again_and_said_once() -> None:
    server = FakeServer()
    server.alive = False
    server.restart_fault = ServerStartFailed("expected a version, got none")
    said = watch_for_looks(server, n_looks=4)
    assert said == [
        "Triton has ended; restarting it",
        "the restart failed (expected a version, got none); retrying until it succeeds",
    ]
    assert server.n_restarts >= 4
