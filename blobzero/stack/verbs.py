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
    from blobzero.stack.compose import Member, Stack

Project = Annotated[Path, tyro.conf.arg(help="The checkout that holds compose.yaml.")]
TOP = "docker compose exec trainer blobzero top --url triton:8002 selfplay:9100 localhost:9100"
"""Metrics are not published on the host: this asks from inside."""
SERVICES = ("init", "triton", "selfplay", "trainer", "loadtest", "prometheus", "grafana")


@dataclass(frozen=True)
class UpConfig:
    """Start the whole system in containers: Triton, self-play, the trainer; again, it starts what is missing."""

    cpu: bool = False
    """Leave the GPU alone, if there is one."""
    selfplay: int | None = None
    """Containers that play, a core each; the files' own number unless given."""
    monitoring: bool = False
    """Prometheus and Grafana too."""
    build: bool = False
    """Build the images anew, from this checkout."""
    project: Project = field(default_factory=Path)


@dataclass(frozen=True)
class DownConfig:
    """Stop the stack in order: workers write what they have finished."""

    timeout: int = 30
    """Seconds before what still runs is killed."""
    project: Project = field(default_factory=Path)


@dataclass(frozen=True)
class StatusConfig:
    """The containers of the stack, and where they listen."""

    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print a JSON list on standard output."""
    project: Project = field(default_factory=Path)


@dataclass(frozen=True)
class LogsConfig:
    """What the containers say."""

    services: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Of these services; of all unless given."""
    follow: bool = False
    """Go on until Ctrl-C."""
    tail: int = 50
    """Lines of each container, the last ones."""
    project: Project = field(default_factory=Path)


@dataclass(frozen=True)
class ScaleConfig:
    """Have so many containers play, until the next `up` counts them as the files say."""

    selfplay: Annotated[int, tyro.conf.Positional]
    """Containers that play, a core each."""
    project: Project = field(default_factory=Path)


def up(config: UpConfig) -> int:
    """Start and wait; the exit status."""
    from blobzero.stack.compose import Stack, has_gpu

    console = plain_console(stderr=True)
    cpu = config.cpu or not has_gpu()
    why = "as asked for" if config.cpu else "no GPU found" if cpu else "a GPU was found"
    console.print(f"{'compose.yaml + compose.cpu.yaml' if cpu else 'compose.yaml'}: {why}", markup=False)
    stack = Stack(config.project, cpu=cpu, profiles=["monitoring"] if config.monitoring else [])
    stack.up(scales={} if config.selfplay is None else {"selfplay": _at_least_one(config.selfplay)}, build=config.build)
    _show(console, stack.members())
    console.print(f"next     blobzero logs --follow   or   {TOP}", soft_wrap=True)
    return 0


def down(config: DownConfig) -> int:
    """Stop; the exit status."""
    _stack(config.project).down(timeout_s=config.timeout)
    plain_console(stderr=True).print("stopped; models and records stay in their volumes", markup=False)
    return 0


def status(config: StatusConfig) -> int:
    """List; the exit status: 1 where something is not as it should be."""
    members = _stack(config.project).members()
    if config.json:
        json.dump([asdict(member) for member in members], sys.stdout, indent=2)
        print()
    else:
        _show(plain_console(stderr=True), members)
    return 0 if members and all(member.is_well for member in members) else 1


def logs(config: LogsConfig) -> int:
    """Copy to standard output; the exit status."""
    unknown = sorted(set(config.services) - set(SERVICES))
    if unknown:
        raise InvalidConfig(f"expected services of {', '.join(SERVICES)}, got {', '.join(unknown)}")
    for line in _stack(config.project).logs(list(config.services), follow=config.follow, tail=config.tail):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return 0


def scale(config: ScaleConfig) -> int:
    """Start or stop containers; the exit status."""
    stack = _stack(config.project)
    if stack.runs_on_cpu():  # new containers are made as the files say, so it has to be both
        stack = _stack(config.project, cpu=True)
    stack.scale("selfplay", _at_least_one(config.selfplay))
    _show(plain_console(stderr=True), stack.members())
    return 0


def _stack(project: Path, *, cpu: bool = False) -> "Stack":
    """To look at what runs, and to stop it, it does not matter which files it was started with."""
    from blobzero.stack.compose import Stack

    return Stack(project, cpu=cpu)


def _at_least_one(n: int) -> int:
    if n < 1:
        raise InvalidConfig(f"expected 1 or more containers that play, got {n}; blobzero down stops all")
    return n


def _show(console: Console, members: "list[Member]") -> None:
    if not members:
        console.print("nothing runs; blobzero up starts the stack", markup=False)
        return
    table = Table("service", "container", "state", "health", "listens at", box=None, pad_edge=False)
    for member in members:
        table.add_row(member.service, member.name, member.state, member.health, " ".join(member.listens))
    console.print(table)
