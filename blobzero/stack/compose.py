# SPDX-License-Identifier: Apache-2.0
"""The stack of compose.yaml through Docker Compose (python-on-whales), with a GPU or on the CPU."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from python_on_whales import Container, DockerClient
from python_on_whales.exceptions import DockerException

from mcts_ext.errors import BlobError

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


class ComposeStack:
    """Stack of a checkout.

    Args:
        folder: folder of the compose files.
        cpu: do not use a GPU; matters for creating containers, not for listing or stopping them.
        profiles: Compose profiles; containers of other profiles are neither listed nor stopped.

    Raises:
        StackError: if the compose files, Docker or Compose v2 are missing, or the engine does not respond.
    """

    def __init__(self, folder: Path, *, cpu: bool, profiles: Sequence[str] = PROFILES) -> None:
        files: list[str | Path] = [folder / FILE, *([folder / CPU_FILE] if cpu else [])]
        for file in files:
            if not Path(file).is_file():
                raise StackError(f"expected {file}, got no file; run this in a checkout, or pass it (--project)")
        self._docker = DockerClient(compose_files=files, compose_profiles=list(profiles))
        _require_docker("compose", "version", expected="Docker with Compose v2", advice="install both")
        _require_docker("version", expected="a Docker engine that answers", advice="start it, or set DOCKER_HOST")

    def up(self, *, scales: Mapping[str, int], build: bool = False) -> None:
        """Start missing containers and wait until all health checks pass; Compose shows the progress."""
        with _docker_errors("start the stack"):
            self._docker.compose.up(detach=True, wait=True, build=build, scales=dict(scales))

    def scale(self, service: str, n: int) -> None:
        """Set the number of containers of a service; running ones are kept."""
        with _docker_errors(f"scale {service}"):
            self._docker.compose.up([service], detach=True, recreate=False, scales={service: n})

    def down(self, *, timeout_s: int, volumes: bool = False) -> None:
        """Stop all services in order and remove the containers, and the volumes if requested."""
        with _docker_errors("stop the stack"):
            self._docker.compose.down(timeout=timeout_s, volumes=volumes, remove_orphans=True)

    def members(self) -> list[Member]:
        """Return all containers, including stopped ones, by service and name."""
        with _docker_errors("list the stack"):
            members = [_member(container) for container in self._docker.compose.ps(all=True)]
        return sorted(members, key=lambda member: (member.service, member.name))

    def runs_on_cpu(self) -> bool:
        """Return whether the existing Triton container is the CPU variant."""
        return any(member.image.startswith(CPU_IMAGE) for member in self.members() if member.service == "triton")

    def logs(self, services: list[str], *, follow: bool, tail: int) -> Iterator[bytes]:
        """Yield lines of the containers' logs, of all services by default."""
        with _docker_errors("read the logs"):
            for _, line in self._docker.compose.logs(services, follow=follow, tail=str(tail), stream=True):
                yield line


@contextmanager
def _docker_errors(action: str) -> Iterator[None]:
    """Convert Docker's errors to StackError."""
    try:
        yield
    except DockerException as error:
        got = _last_line(error.stderr) or f"status {error.return_code}, for the reason above"
        raise StackError(f"expected Docker to {action}, got {got}; see blobzero status and blobzero logs") from error


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


def _member(container: Container) -> Member:
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
