# SPDX-License-Identifier: Apache-2.0
"""The stack of compose.yaml through Docker Compose (python-on-whales), with a GPU or on the CPU."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mcts_ext.errors import BlobError

if TYPE_CHECKING:  # an optional dependency
    from python_on_whales import Container, DockerClient

FILE: Final = "compose.yaml"
CPU_FILE: Final = "compose.cpu.yaml"
CPU_IMAGE: Final = "blobzero-triton-cpu"
PROFILES: Final = ("monitoring", "loadtest")
ANSWER_TIMEOUT_S: Final = 20.0
"""Timeout of the check that the Docker engine responds."""


class StackError(BlobError):
    """The compose files or Docker are missing, or a Docker command failed."""


@dataclass(frozen=True)
class Member:
    """Container of the stack."""

    name: str
    service: str
    state: str
    """running, restarting, exited, ..."""
    health: str
    """healthy, unhealthy, starting; empty without a health check."""
    listens: tuple[str, ...]
    """Published ADDRESS:PORT on this host."""
    image: str
    exit_code: int

    @property
    def is_cpu_triton(self) -> bool:
        """Whether it is the server, in its variant for the CPU."""
        return self.service == "triton" and self.image.startswith(CPU_IMAGE)

    @property
    def is_well(self) -> bool:
        """Whether it is running and not unhealthy, or has finished successfully."""
        return (self.state == "running" and self.health in ("", "healthy")) or (
            self.state == "exited" and self.exit_code == 0
        )


def has_gpu() -> bool:
    """Return whether the NVIDIA driver works on this host, as required by Docker's GPU reservation."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    return subprocess.run([program, "-L"], capture_output=True, check=False).stdout.startswith(b"GPU")


@contextmanager
def compose(
    action: str, folder: Path, *, cpu: bool = False, profiles: Sequence[str] = PROFILES
) -> Iterator["DockerClient"]:
    """Yield Docker for the stack of a checkout and an action such as "stop the stack".

    Args:
        action: what it is used for, for errors.
        folder: folder of the compose files.
        cpu: do not use a GPU; matters for creating containers, not for listing or stopping them.
        profiles: Compose profiles; containers of other profiles are neither listed nor stopped.

    Raises:
        StackError: if the compose files, Docker or Compose v2 are missing, the engine does not answer, or Docker fails.
    """
    from python_on_whales import DockerClient
    from python_on_whales.exceptions import DockerException

    files: list[str | Path] = [folder / FILE, *([folder / CPU_FILE] if cpu else [])]
    for file in files:
        if not Path(file).is_file():
            raise StackError(f"expected {file}, got no file; run this in a checkout, or pass it (--project)")
    _require_docker("compose", "version", expected="Docker with Compose v2", advice="install both")
    _require_docker("version", expected="a Docker engine that answers", advice="start it, or set DOCKER_HOST")
    try:
        yield DockerClient(compose_files=files, compose_profiles=list(profiles))
    except DockerException as error:
        got = _last_line(error.stderr) or f"status {error.return_code}, for the reason above"
        raise StackError(f"expected Docker to {action}, got {got}; see blobzero status and blobzero logs") from error


def members_of(docker: "DockerClient") -> list[Member]:
    """Return all containers, including stopped ones, by service and name."""
    return sorted(map(_member, docker.compose.ps(all=True)), key=lambda member: (member.service, member.name))


def _require_docker(*words: str, expected: str, advice: str) -> None:
    """Raise StackError unless a `docker` command succeeds."""
    try:
        done = subprocess.run(["docker", *words], capture_output=True, timeout=ANSWER_TIMEOUT_S, check=False)
        got = _last_line(done.stderr) or f"status {done.returncode}" if done.returncode else ""
    except OSError as error:
        got = f"{error.strerror}: docker"
    except subprocess.TimeoutExpired:
        got = f"none within {ANSWER_TIMEOUT_S:g} s"
    if got:
        raise StackError(f"expected {expected}, got {got}; {advice}")


def _last_line(text: str | bytes | None) -> str:
    """Return the last non-empty line, or an empty string."""
    lines = (text.decode(errors="replace") if isinstance(text, bytes) else text or "").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _member(container: "Container") -> Member:
    state, ports = container.state, container.network_settings.ports or {}
    return Member(
        name=container.name,
        service=(container.config.labels or {}).get("com.docker.compose.service", ""),
        state=state.status or "",
        health=(state.health.status or "") if state.health else "",
        listens=tuple(sorted({f"{b['HostIp']}:{b['HostPort']}" for bound in ports.values() for b in bound or ()})),
        image=container.config.image or "",
        exit_code=state.exit_code or 0,
    )
