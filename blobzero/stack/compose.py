# SPDX-License-Identifier: Apache-2.0
"""The stack of compose.yaml, driven through Docker Compose (python-on-whales): with a GPU, or on the CPU alone."""

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
"""Of an engine that is asked for its version."""


class StackError(BlobError):
    """No compose files, no engine, or an engine that did not do what it was asked for."""


@dataclass(frozen=True)
class Member:
    """One container of the stack."""

    name: str
    service: str
    state: str
    """running, restarting, exited, ..."""
    health: str
    """healthy, unhealthy, starting; empty where nobody checks."""
    listens: tuple[str, ...]
    """ADDRESS:PORT on this host."""
    image: str
    exit_code: int

    @property
    def is_well(self) -> bool:
        """Running, and healthy where somebody checks; or it has done what it was for."""
        return (self.state == "running" and self.health in ("", "healthy")) or (
            self.state == "exited" and self.exit_code == 0
        )


def has_gpu() -> bool:
    """Whether the NVIDIA driver answers on this host: what Docker's GPU reservation rests on."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    return subprocess.run([program, "-L"], capture_output=True, check=False).stdout.startswith(b"GPU")


class Stack:
    """The stack of a checkout.

    Args:
        folder: holds the compose files.
        cpu: leave the GPU alone; matters where containers are made, not where they are listed or stopped.
        profiles: what Compose is to see besides; it does not list or stop the containers of others.

    Raises:
        StackError: no compose files there, no Docker with Compose v2, or an engine that does not answer.
    """

    def __init__(self, folder: Path, *, cpu: bool, profiles: Sequence[str] = PROFILES) -> None:
        files: list[str | Path] = [folder / FILE, *([folder / CPU_FILE] if cpu else [])]
        for file in files:
            if not Path(file).is_file():
                raise StackError(f"expected {file}, got nothing there; run this in a checkout, or name it (--project)")
        self._docker = DockerClient(compose_files=files, compose_profiles=list(profiles))
        _ask("compose", "version", expected="Docker with Compose v2", cure="install both")
        _ask("version", expected="a Docker engine that answers", cure="start it, or say in DOCKER_HOST where it is")

    def up(self, *, scales: Mapping[str, int], build: bool = False) -> None:
        """Start what does not run yet, and wait until all that is checked is healthy; Compose shows how it goes."""
        with _told("start the stack"):
            self._docker.compose.up(detach=True, wait=True, build=build, scales=dict(scales))

    def scale(self, service: str, n: int) -> None:
        """Have so many containers of a service; those that run go on."""
        with _told(f"scale {service}"):
            self._docker.compose.up([service], detach=True, recreate=False, scales={service: n})

    def down(self, *, timeout_s: int, volumes: bool = False) -> None:
        """Stop everything in order and remove the containers; the volumes only when asked to."""
        with _told("stop the stack"):
            self._docker.compose.down(timeout=timeout_s, volumes=volumes, remove_orphans=True)

    def members(self) -> list[Member]:
        """The containers, those that ended too, by service and name."""
        with _told("list the stack"):
            found = [_member(container) for container in self._docker.compose.ps(all=True)]
        return sorted(found, key=lambda member: (member.service, member.name))

    def runs_on_cpu(self) -> bool:
        """Whether the Triton that is there is the one without a GPU."""
        return any(member.image.startswith(CPU_IMAGE) for member in self.members() if member.service == "triton")

    def logs(self, services: list[str], *, follow: bool, tail: int) -> Iterator[bytes]:
        """Lines of the containers' logs; without services, of all."""
        with _told("read the logs"):
            for _, line in self._docker.compose.logs(services, follow=follow, tail=str(tail), stream=True):
                yield line


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn Docker's failure into one line."""
    try:
        yield
    except DockerException as error:
        got = _last_line(error.stderr) or f"status {error.return_code}, for the reason above"
        raise StackError(f"expected Docker to {what}, got {got}; blobzero status and logs may say more") from error


def _ask(*words: str, expected: str, cure: str) -> None:
    """Raise StackError unless `docker` does as it is told."""
    try:
        done = subprocess.run(["docker", *words], capture_output=True, timeout=ANSWER_TIMEOUT_S, check=False)
        got = _last_line(done.stderr) or f"status {done.returncode}" if done.returncode else ""
    except OSError as error:
        got = f"{error.strerror}: docker"
    except subprocess.TimeoutExpired:
        got = f"none within {ANSWER_TIMEOUT_S:g} s"
    if got:
        raise StackError(f"expected {expected}, got {got}; {cure}")


def _last_line(text: str | bytes | None) -> str:
    """The last that says something; empty where none does."""
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
