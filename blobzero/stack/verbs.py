# SPDX-License-Identifier: Apache-2.0
"""`blobzero up`, `down`, `status`, `logs`, `scale`: the stack of compose.yaml on this host."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from blobzero.arguments import Range
from blobzero.stack.compose import Member, compose, has_gpu, members_of
from mcts_ext.errors import InvalidConfig
from ui.console import new_table, plain_console
from ui.next_step import propose

Project = Annotated[Path, tyro.conf.arg(help="Checkout that contains compose.yaml.")]
TOP = "docker compose exec trainer blobzero top --url triton:8002 selfplay:9100 localhost:9100"
"""Command that shows the metrics from inside, since their ports are not published on the host."""
SERVICES = ("init", "triton", "selfplay", "trainer", "loadtest", "prometheus", "grafana")


@dataclass(frozen=True)
class UpConfig:
    """Start the complete system in containers: Triton, self-play, the trainer. Repeat it to start what is missing."""

    cpu: bool = False
    """Do not use a GPU."""
    selfplay: Annotated[int | None, Range(1, 1024)] = None
    """Number of self-play containers, with one core each; by default as in the compose files."""
    monitoring: bool = False
    """Also start Prometheus and Grafana."""
    build: bool = False
    """Rebuild the images from this checkout."""
    project: Project = Path()


@dataclass(frozen=True)
class DownConfig:
    """Stop the stack; workers write their finished rounds."""

    timeout: int = 30
    """Seconds until containers that still run are killed."""
    project: Project = Path()


@dataclass(frozen=True)
class StatusConfig:
    """Show the containers of the stack and their published ports."""

    json: bool = False
    """Print a JSON list on standard output."""
    project: Project = Path()


@dataclass(frozen=True)
class LogsConfig:
    """Show the logs of the containers."""

    services: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Services to show; all by default."""
    follow: bool = False
    """Continue until Ctrl-C."""
    tail: int = 50
    """Number of last lines per container."""
    project: Project = Path()


@dataclass(frozen=True)
class ScaleConfig:
    """Set the number of self-play containers, until the next `up` resets it to that of the compose files."""

    selfplay: Annotated[int, tyro.conf.Positional, Range(1, 1024)]
    """Number of self-play containers, with one core each."""
    project: Project = Path()


def up(config: UpConfig) -> int:
    """Start the stack and wait; return the exit status."""
    console = plain_console(stderr=True)
    cpu = config.cpu or not has_gpu()
    why = "as requested" if config.cpu else "no GPU found" if cpu else "a GPU was found"
    console.print(f"{'compose.yaml + compose.cpu.yaml' if cpu else 'compose.yaml'}: {why}")
    profiles = ["monitoring"] if config.monitoring else []
    scales = {} if config.selfplay is None else {"selfplay": config.selfplay}
    with compose("start the stack", config.project, cpu=cpu, profiles=profiles) as docker:
        docker.compose.up(detach=True, wait=True, build=config.build, scales=scales)
        _show(console, members_of(docker))
    propose(console, "blobzero logs --follow", TOP)
    return 0


def down(config: DownConfig) -> int:
    """Stop the stack; return the exit status."""
    with compose("stop the stack", config.project) as docker:
        docker.compose.down(timeout=config.timeout, remove_orphans=True)
    plain_console(stderr=True).print("stopped; models and records stay in their volumes")
    return 0


def status(config: StatusConfig) -> int:
    """Show the containers; return the exit status, 1 if any is not well."""
    with compose("list the stack", config.project) as docker:
        members = members_of(docker)
    if config.json:
        print(json.dumps([asdict(member) for member in members], indent=2))
    else:
        _show(plain_console(stderr=True), members)
    return 0 if members and all(member.is_well for member in members) else 1


def logs(config: LogsConfig) -> int:
    """Copy logs to standard output; return the exit status."""
    unknown = sorted(set(config.services) - set(SERVICES))
    if unknown:
        raise InvalidConfig(f"expected services of {', '.join(SERVICES)}, got {', '.join(unknown)}")
    with compose("read the logs", config.project) as docker:
        for _, line in docker.compose.logs(
            list(config.services), follow=config.follow, tail=str(config.tail), stream=True
        ):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    return 0


def scale(config: ScaleConfig) -> int:
    """Start or stop containers; return the exit status."""
    action, scales = "scale selfplay", {"selfplay": config.selfplay}
    with compose(action, config.project) as docker:
        cpu = any(member.is_cpu_triton for member in members_of(docker))
    with compose(action, config.project, cpu=cpu) as docker:  # creating containers takes the files that Triton's took
        docker.compose.up(["selfplay"], detach=True, recreate=False, scales=scales)
        _show(plain_console(stderr=True), members_of(docker))
    return 0


def _show(console: Console, members: list[Member]) -> None:
    if not members:
        console.print("nothing runs; blobzero up starts the stack")
        return
    headings = ("service", "container", "state", "health", "listens at")
    table = new_table(None, *headings, left=headings, box=None, pad_edge=False)
    for member in members:
        table.add_row(member.service, member.name, member.state, member.health, " ".join(member.listens))
    console.print(table)
