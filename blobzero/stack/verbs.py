# SPDX-License-Identifier: Apache-2.0
"""`blobzero up`, `down`, `status`, `logs`, `scale`: the stack of compose.yaml on this host."""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from mcts_ext.errors import InvalidConfig
from ui.console import plain_console

if TYPE_CHECKING:
    from blobzero.stack.compose import ComposeStack, Member

Project = Annotated[Path, tyro.conf.arg(help="Checkout that contains compose.yaml.")]
TOP = "docker compose exec trainer blobzero top --url triton:8002 selfplay:9100 localhost:9100"
"""Command that shows the metrics from inside, since their ports are not published on the host."""
SERVICES = ("init", "triton", "selfplay", "trainer", "loadtest", "prometheus", "grafana")


@dataclass(frozen=True)
class UpConfig:
    """Start the complete system in containers: Triton, self-play, the trainer. Repeat it to start what is missing."""

    cpu: bool = False
    """Do not use a GPU."""
    selfplay: int | None = None
    """Number of self-play containers, with one core each; by default as in the compose files."""
    monitoring: bool = False
    """Also start Prometheus and Grafana."""
    build: bool = False
    """Rebuild the images from this checkout."""
    project: Project = field(default_factory=Path)


@dataclass(frozen=True)
class DownConfig:
    """Stop the stack; workers write their finished rounds."""

    timeout: int = 30
    """Seconds until containers that still run are killed."""
    project: Project = field(default_factory=Path)


@dataclass(frozen=True)
class StatusConfig:
    """Show the containers of the stack and their published ports."""

    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print a JSON list on standard output."""
    project: Project = field(default_factory=Path)


@dataclass(frozen=True)
class LogsConfig:
    """Show the logs of the containers."""

    services: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Services to show; all by default."""
    follow: bool = False
    """Continue until Ctrl-C."""
    tail: int = 50
    """Number of last lines per container."""
    project: Project = field(default_factory=Path)


@dataclass(frozen=True)
class ScaleConfig:
    """Set the number of self-play containers, until the next `up` resets it to that of the compose files."""

    selfplay: Annotated[int, tyro.conf.Positional]
    """Number of self-play containers, with one core each."""
    project: Project = field(default_factory=Path)


def up(config: UpConfig) -> int:
    """Start the stack and wait; return the exit status."""
    from blobzero.stack.compose import ComposeStack, has_gpu

    console = plain_console(stderr=True)
    cpu = config.cpu or not has_gpu()
    why = "as requested" if config.cpu else "no GPU found" if cpu else "a GPU was found"
    console.print(f"{'compose.yaml + compose.cpu.yaml' if cpu else 'compose.yaml'}: {why}", markup=False)
    stack = ComposeStack(config.project, cpu=cpu, profiles=["monitoring"] if config.monitoring else [])
    stack.up(scales={} if config.selfplay is None else {"selfplay": _at_least_one(config.selfplay)}, build=config.build)
    _show(console, stack.members())
    console.print(f"next     blobzero logs --follow   or   {TOP}", soft_wrap=True)
    return 0


def down(config: DownConfig) -> int:
    """Stop the stack; return the exit status."""
    _stack(config.project).down(timeout_s=config.timeout)
    plain_console(stderr=True).print("stopped; models and records stay in their volumes", markup=False)
    return 0


def status(config: StatusConfig) -> int:
    """Show the containers; return the exit status, 1 if any is not well."""
    members = _stack(config.project).members()
    if config.json:
        json.dump([asdict(member) for member in members], sys.stdout, indent=2)
        print()
    else:
        _show(plain_console(stderr=True), members)
    return 0 if members and all(member.is_well for member in members) else 1


def logs(config: LogsConfig) -> int:
    """Copy logs to standard output; return the exit status."""
    unknown = sorted(set(config.services) - set(SERVICES))
    if unknown:
        raise InvalidConfig(f"expected services of {', '.join(SERVICES)}, got {', '.join(unknown)}")
    for line in _stack(config.project).logs(list(config.services), follow=config.follow, tail=config.tail):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return 0


def scale(config: ScaleConfig) -> int:
    """Start or stop containers; return the exit status."""
    stack = _stack(config.project)
    if stack.runs_on_cpu():  # new containers need both compose files
        stack = _stack(config.project, cpu=True)
    stack.scale("selfplay", _at_least_one(config.selfplay))
    _show(plain_console(stderr=True), stack.members())
    return 0


def _stack(project: Path, *, cpu: bool = False) -> "ComposeStack":
    """Return the stack; `cpu` only matters for creating containers."""
    from blobzero.stack.compose import ComposeStack

    return ComposeStack(project, cpu=cpu)


def _at_least_one(n: int) -> int:
    if n < 1:
        raise InvalidConfig(f"expected 1 or more self-play containers, got {n}; blobzero down stops all")
    return n


def _show(console: Console, members: "list[Member]") -> None:
    if not members:
        console.print("nothing runs; blobzero up starts the stack", markup=False)
        return
    table = Table("service", "container", "state", "health", "listens at", box=None, pad_edge=False)
    for member in members:
        table.add_row(member.service, member.name, member.state, member.health, " ".join(member.listens))
    console.print(table)
