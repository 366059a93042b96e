# SPDX-License-Identifier: Apache-2.0
"""The faults of a soak test: what each does to the system, for how long, and when it is cured."""

import contextlib
import random
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import psutil

from clients.processes import python_command
from clients.selfplay.fleet import Fleet
from mcts_ext.contract import MODEL_NAME
from perf.soak.disk import SmallDisk
from perf.soak.proxy import Proxy
from serving.embedded import EmbeddedTriton

FaultName = Literal[
    "server-kill", "backend-kill", "worker-kill", "network-cut", "network-stall", "slow-link", "model-swap", "disk-full"
]
CUT_S: Final = 4.0
STALL_S: Final = 6.0
SLOW_S: Final = 8.0
SLOW_LATENCY_S: Final = 0.02
SLOW_BYTES_PER_S: Final = 2e6
FULL_S: Final = 5.0
"""Longer than a worker's time between shards, so that it meets the full disk."""


@dataclass(frozen=True)
class Stack:
    """The system under test."""

    triton: EmbeddedTriton
    proxy: Proxy
    fleet: Fleet
    disk: SmallDisk | None
    repository: Path
    preset: str
    seed: int
    random: random.Random


@dataclass(frozen=True)
class Inflicted:
    """A fault in progress."""

    what: str
    seconds: float = 0.0
    """Minimum duration."""
    is_over: Callable[[], bool] = lambda: True
    is_cured: Callable[[], bool] = lambda: True
    """Whether the damage is repaired, apart from the rate of play."""
    failure: Callable[[], str | None] = lambda: None
    """Why it could not be inflicted as intended; called when it is over."""
    stops_play: bool = False
    """Whether play must stop while it lasts."""


@dataclass(frozen=True)
class FaultReport:
    """One fault and its effect; times in seconds since play began, rates in evaluations/s."""

    kind: str
    what: str
    began: float
    ended: float
    rate_before: float
    rate_lowest: float
    recovered_s: float | None
    """Time from its end until play was back at its rate; None if that took too long."""
    failure: str | None
    """Why it could not be inflicted as intended."""
    accounts: list[str]
    """New findings in the accounts of rounds and memory since the previous fault."""

    @property
    def is_good(self) -> bool:
        return self.failure is None and self.recovered_s is not None and not self.accounts

    def __str__(self) -> str:
        after = "did not recover" if self.recovered_s is None else f"recovered {self.recovered_s:.1f} s after"
        return "; ".join([f"{self.kind}, {self.what}: {self.failure or after}", *self.accounts])


Fault = AbstractContextManager[Inflicted]


def _kill(pid: int, what: str, *, is_cured: Callable[[], bool]) -> Fault:
    """Send SIGKILL to a process."""
    failure = None
    try:
        psutil.Process(pid or -1).kill()
    except (psutil.Error, ValueError):
        failure = f"there was no process {pid} to kill"
    return contextlib.nullcontext(Inflicted(f"SIGKILL to {what}", failure=lambda: failure, is_cured=is_cured))


def _server_kill(stack: Stack) -> Fault:
    pid = stack.triton.pid
    return _kill(pid, f"Triton, process {pid}", is_cured=lambda: stack.triton.pid not in (0, pid))


def _backend_kill(stack: Stack) -> Fault:
    server = stack.triton.pid
    # A backend of the current version: only the watch would notice the death of another version's.
    current = f"/{MODEL_NAME}/{stack.fleet.model_version}/"
    victims: list[int] = []
    with contextlib.suppress(psutil.Error, ValueError):
        children = psutil.Process(server or -1).children()  # not their children, whose death nobody watches
        victims = [one.pid for one in children if any(current in word for word in one.cmdline())]
    victim = stack.random.choice(victims) if victims else 0
    what = f"backend process {victim} of {len(victims)} of version {stack.fleet.model_version}"
    return _kill(victim, what, is_cured=lambda: stack.triton.pid not in (0, server))


def _worker_kill(stack: Stack) -> Fault:
    fleet, before, n_workers = stack.fleet, stack.fleet.n_restarts, len(stack.fleet.pids)
    index = before % n_workers  # in turns: a worker that dies too often ends a fleet
    pid = fleet.pids[index]
    return _kill(
        pid,
        f"worker {index}, process {pid}",
        is_cured=lambda: fleet.n_restarts > before and fleet.n_playing == n_workers,
    )


@contextlib.contextmanager
def _model_swap(stack: Stack) -> Iterator[Inflicted]:
    before = max(stack.fleet.model_versions, default=0)
    seed = stack.seed + before
    command = python_command(
        "clients.starter", "blobzero.cli", "publish", "--preset", stack.preset, "--seed", str(seed),
        "--repository", str(stack.repository), "--url", stack.triton.url, "--keep", "2",
    )  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,  # Ctrl-C must reach only this process; it ends when its input closes
    ) as process:  # fmt: skip
        assert process.stderr is not None
        errors = process.stderr

        def failure() -> str | None:
            said = errors.read().strip().splitlines()
            return None if process.returncode == 0 else f"publish failed: {said[-1] if said else process.returncode}"

        yield Inflicted(
            f"network {seed} published over version {before}",
            is_over=lambda: process.poll() is not None,
            is_cured=lambda: max(stack.fleet.model_versions, default=0) > before,
            failure=failure,
        )


@contextlib.contextmanager
def _between(begin: Callable[[], None], end: Callable[[], None], inflicted: Inflicted) -> Iterator[Inflicted]:
    begin()
    try:
        yield inflicted
    finally:
        end()


def _on_network(begin: Callable[[Proxy], None], inflicted: Inflicted) -> Callable[[Stack], Fault]:
    return lambda stack: _between(lambda: begin(stack.proxy), stack.proxy.mend, inflicted)


def _disk_full(stack: Stack) -> Fault:
    assert stack.disk is not None
    return _between(stack.disk.fill, stack.disk.empty, Inflicted("no room for shards", FULL_S, stops_play=True))


KINDS: Final[Mapping[FaultName, Callable[[Stack], Fault]]] = {
    "server-kill": _server_kill,
    "backend-kill": _backend_kill,
    "worker-kill": _worker_kill,
    "network-cut": _on_network(Proxy.cut, Inflicted("connections broken, new ones refused", CUT_S, stops_play=True)),
    "network-stall": _on_network(
        Proxy.stall, Inflicted("connections stay open, no byte arrives", STALL_S, stops_play=True)
    ),
    "slow-link": _on_network(
        partial(Proxy.slow, latency_s=SLOW_LATENCY_S, bytes_per_s=SLOW_BYTES_PER_S),
        Inflicted(f"{1e3 * SLOW_LATENCY_S:g} ms latency, {SLOW_BYTES_PER_S / 1e6:g} MB/s", SLOW_S),
    ),
    "model-swap": _model_swap,
    "disk-full": _disk_full,
}
"""Functions that inflict a fault; leaving the context ends what can be ended."""


def schedule(
    n_faults: int, *, kinds: Sequence[FaultName], begin_s: float, end_s: float, seed: int
) -> list[tuple[float, FaultName]]:
    """Return times and kinds: every kind before any comes again, in random order, evenly spread with some jitter."""
    rng = random.Random(seed)
    order: list[FaultName] = []
    while len(order) < n_faults:
        order += rng.sample(list(kinds), len(kinds))
    gap = (end_s - begin_s) / max(1, n_faults)
    return [(begin_s + gap * (i + rng.uniform(0.0, 0.3)), kind) for i, kind in enumerate(order[:n_faults])]
