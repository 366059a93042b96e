# SPDX-License-Identifier: Apache-2.0
"""The stack on a real Docker engine, in a project of its own; skipped where no engine answers."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.ports import choose_ports

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = ("-f", "compose.yaml", "-f", "compose.cpu.yaml")


class Project:
    """`docker compose` and `blobzero` with one project's settings."""

    def __init__(self) -> None:
        ports = choose_ports("127.0.0.1", {"TRITON_GRPC_PORT": None})
        self.ports = {name: str(port) for name, port in ports.items()}
        self.environment = {
            **os.environ,
            **self.ports,
            "COMPOSE_PROJECT_NAME": "blobzero-test",
            "BLOBZERO_TAG": "test",  # a stack that runs beside keeps its images
            "BLOBZERO_NETWORK": "small",
            "BLOBZERO_PRESET": "demo",
            # Few rounds at a time: they end soon, and the trainer waits for its first generation for long.
            "BLOBZERO_SEARCH": "--determinizations 8 --simulations 4 --games 32 --shard-seconds 5",
        }

    def compose(self, *words: str, timeout_s: float = 300.0) -> str:
        """Standard output; fails the test with what Compose says."""
        return self._run(["docker", "compose", *FILES, *words], timeout_s)

    def blobzero(self, *words: str, timeout_s: float = 300.0) -> str:
        """Standard output of the command on this host."""
        return self._run([sys.executable, "-m", "blobzero.cli", *words], timeout_s)

    def in_trainer(self, *words: str) -> str:
        """Standard output of a program in the trainer's container."""
        return self.compose("exec", "-T", "trainer", *words)

    def containers(self, service: str) -> list[dict[str, Any]]:
        """What the engine says of a service's containers."""
        names = self.compose("ps", "-aq", service).split()
        found: list[dict[str, Any]] = json.loads(self._run(["docker", "inspect", *names], 30.0))
        return found

    def _run(self, command: list[str], timeout_s: float) -> str:
        done = subprocess.run(
            command, cwd=CHECKOUT, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def engine() -> None:
    """Skip without an engine with Compose v2."""
    if shutil.which("docker") is None:
        pytest.skip("no Docker engine with Compose v2: no docker")
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode:
            pytest.skip(f"no Docker engine with Compose v2: {' '.join(command)} fails")


@pytest.fixture(scope="module")
def project(engine: None) -> Iterator[Project]:
    """Images built, nothing running before or after."""
    found = Project()
    found.compose("--profile", "*", "down", "--volumes", "--remove-orphans")
    found.compose("build", timeout_s=1800.0)
    yield found
    found.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
