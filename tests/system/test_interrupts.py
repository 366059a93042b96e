# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM while a command waits for something: it ends at once, with 130 or 143, and leaves nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from perf.load.plan import Target, Traffic
from perf.load.sender.worker import SenderConfig
from perf.soak.proxy import Proxy
from serving.embedded import EmbeddedTriton
from tests.clients.selfplay.test_fleet import configs
from tests.support.python_models import SLEEPER_CONFIG, _write
from tests.support.tiny_model import MODEL
from tests.system.test_kills import left_in, left_of, stubs_below

AT_ONCE_S = 2.0
NEVER_READY = """
import time
class TritonPythonModel:
    def initialize(self, args):
        time.sleep(600)
"""
SIGNALS = [signal.SIGINT, signal.SIGTERM]
VERBS = {
    "selfplay": ["--repository", "{models}", "--out", "{out}", "--workers", "1"],
    "play": ["--repository", "{models}"],
    "serve": ["--repository", "{models}"],
    "match": ["latest", "random", "--repository", "{models}"],
    "loadtest": ["--repository", "{models}"],
}
"""With a server of their own."""
ELSEWHERE = {
    "selfplay": ["--url", "{nobody}", "--out", "{out}", "--workers", "2", "--server-timeout", "3600"],
    "play": ["--url", "{nobody}"],
    "match": ["latest", "random", "--url", "{nobody}", "--server-timeout", "3600"],
}
"""With one that is not there yet."""


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def assert_ends(
    folder: Path, verb: str, words: list[str], number: signal.Signals, waits: Callable[[psutil.Process, str], bool]
) -> None:
    """Start it, wait until it `waits` (told what it is and has said), ask it to end, and see what is left."""
    (folder / "tmp").mkdir()
    command = [sys.executable, "-m", "blobzero.cli", verb, *words]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=os.environ | {"TMPDIR": str(folder / "tmp")}
        )
    watched = psutil.Process(process.pid)
    deadline = time.monotonic() + 60.0
    while not waits(watched, (folder / "said").read_text()):
        assert process.poll() is None, (folder / "said").read_text()
        assert time.monotonic() < deadline, (folder / "said").read_text()
        time.sleep(0.05)
    family = [watched, *watched.children(recursive=True)]
    began = time.monotonic()
    process.send_signal(number)
    status = process.wait(timeout=30.0)
    seconds = time.monotonic() - began
    text = (folder / "said").read_text()
    assert status == 128 + number, text
    assert "Traceback" not in text
    assert seconds < AT_ONCE_S
    assert left_of(family) == []
    # The log of a server that had no place for it.
    assert [path for path in left_in(folder / "tmp") if path.suffix != ".log"] == []
    process.stdin.close()  # type: ignore[union-attr]


@pytest.mark.triton
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("verb", VERBS)
def test_while_the_server_starts(verb: str, number: signal.Signals, tmp_path: Path) -> None:
    _write(tmp_path / "models" / MODEL, SLEEPER_CONFIG, NEVER_READY)
    words = [word.format(models=tmp_path / "models", out=tmp_path / "out") for word in VERBS[verb]]

    def has_stub(process: psutil.Process, _said: str) -> bool:
        return bool(stubs_below(process))

    assert_ends(tmp_path, verb, words, number, has_stub)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("verb", ELSEWHERE)
def test_at_the_first_contact(verb: str, number: signal.Signals, tmp_path: Path, nobody: str) -> None:
    words = [word.format(nobody=nobody, out=tmp_path / "out") for word in ELSEWHERE[verb]]
    assert_ends(tmp_path, verb, words, number, lambda _process, said: "does not answer" in said)


def start_worker(module: str, line: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "clients.starter", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    return process


def seconds_to_end(process: subprocess.Popen[str]) -> float:
    """After its starter is gone: with that, the other end of its input closes."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    began = time.monotonic()
    process.wait(timeout=60.0)
    process.stdout.close()
    return time.monotonic() - began


def test_a_worker_that_waits_for_a_server_ends_with_its_starter(tmp_path: Path, nobody: str) -> None:
    (config,) = configs(tmp_path, workers=1, rounds=10, kind="triton")
    given = json.loads(config.to_json())
    given["evaluator"] |= {"url": nobody, "server_timeout_s": 20.0}
    process = start_worker("clients.selfplay.worker", json.dumps(given))
    assert process.stdout is not None
    assert "does not answer" in process.stdout.readline()
    assert seconds_to_end(process) < AT_ONCE_S


@pytest.mark.triton
def test_a_load_worker_whose_server_is_silent_ends_with_its_starter(triton_server: EmbeddedTriton) -> None:
    """Its regions of shared memory, which it would unregister first, go with the server's own end."""
    with Proxy(triton_server.url) as proxy:
        key_file = triton_server.key_file  # drawn for another port than the proxy's
        config = SenderConfig(Target(proxy.url, key_file=key_file), "shm", Traffic(rows=4), 1024, 0)
        process = start_worker("perf.load.sender.worker", config.to_json())
        assert process.stdout is not None
        assert process.stdin is not None
        assert "ready" in process.stdout.readline()
        load = {"concurrency": 4, "rate": None}
        process.stdin.write(json.dumps({"load": load, "at": time.monotonic(), "ramp_s": 0.0, "seed": 0}) + "\n")
        assert "tick" in process.stdout.readline()
        proxy.stall()
        assert seconds_to_end(process) < AT_ONCE_S


def test_a_load_worker_that_is_not_ready_ends_with_its_starter(nobody: str) -> None:
    config = SenderConfig(Target(nobody), "grpc", Traffic(rows=1000), 1024, 0)
    assert seconds_to_end(start_worker("perf.load.sender.worker", config.to_json())) < AT_ONCE_S + 1.5  # imports first
