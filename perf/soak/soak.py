# SPDX-License-Identifier: Apache-2.0
"""A soak test in progress: the system under test, one fault after another, and the accounts at the end.

```
workers ── Proxy ── Triton (with its Watch)          faults: faults.py       accounts: rounds.py, memory.py
   └── shards on a SmallDisk
```
"""

import contextlib
import math
import os
import random
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final, NamedTuple, get_args

import psutil
import tyro

from clients.connect import EvaluatorConfig
from clients.selfplay.fleet import Fleet, FleetError
from clients.selfplay.folder import fresh_folder
from clients.selfplay.worker import WorkerConfig
from export.publishing.publish import SERVED_VERSIONS, publish
from mcts_ext.config import DealConfig
from mcts_ext.errors import BlobError
from perf.soak.disk import SIZE_BYTES, SmallDisk
from perf.soak.faults import KINDS, FaultName, FaultReport, Inflicted, Stack, schedule
from perf.soak.memory import MemoryLog, judge_memory
from perf.soak.proxy import Proxy
from perf.soak.rounds import Bookkeeper, Rounds
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.errors import ServingError
from serving.watch import Watch
from training.network import create_network
from ui.progress import Show

POLL_S: Final = 0.5
LOOK_S: Final = 5.0
"""Interval at which memory and shards are examined."""
RECOVERED: Final = 0.7
"""Play has recovered at this fraction of its rate before the fault."""
WINDOW_S: Final = 4.0
"""Length over which a rate is taken: workers report about once a second."""
CALM_S: Final = 20.0
"""Length of the last undisturbed play that gives the rate before a fault."""
LEAST_CALM_S: Final = 6.0
"""Minimum time between a recovery and the next fault."""
LEAST_RATE: Final = 0.5
"""Minimum fraction of the first undisturbed rate: each recovery is to the rate before its fault, so all could sink."""
NOTICED: Final = 0.5
"""A fault that must stop play has not if the rate stays above this fraction of the rate before."""
RECOVERY_TIMEOUT_S: Final = 60.0
SETTLE_TIMEOUT_S: Final = 300.0
FULL_SHARE: Final = 0.8
SERVER_TIMEOUT_S: Final = 600.0
"""How long workers retry: longer than any fault lasts."""
SHARD_S: Final = 2.0
GAMES: Final = 256
ROUNDS_PER_MINUTE: Final = 60_000
"""More than can be played; a worker keeps 24 bytes of each."""


@dataclass(frozen=True, kw_only=True)
class SoakConfig:
    """Play against a server with faults on a schedule; then account for every round and every megabyte."""

    minutes: float = 20.0
    """How long to play; longer if a fault takes long to recover from."""
    faults: int = 16
    """Number of faults, spread over the time."""
    kinds: tuple[FaultName, ...] = get_args(FaultName)
    """Kinds of fault; every one comes before any comes again. `disk-full` needs the right to mount (root)."""
    workers: int = 2
    """Number of self-play processes."""
    preset: str = "small"
    """Preset of the untrained networks that are served."""
    seed: int = 0
    """Seed of the rounds, the schedule and the networks."""
    out: Path = field(default_factory=partial(fresh_folder, "soak"))
    """Folder for records, logs, soak.json and timeline.png; must be new or empty."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the result as JSON on standard output."""


class Moment(NamedTuple):
    """Progress of all workers together."""

    at: float
    """Seconds since play began."""
    rounds: int
    evaluations: int


class BrokenOff(BlobError):
    """The soak cannot continue: play did not recover, or there is nothing left to play."""


class _Stopped(Exception):
    """A signal asked the soak to stop."""


@dataclass
class Soak:
    """One soak test in progress."""

    config: SoakConfig
    disk: SmallDisk | None
    kinds: Sequence[FaultName]
    show: Show
    was_stopped: Callable[[], bool]
    moments: list[Moment] = field(default_factory=list)
    reports: list[FaultReport] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    """Messages of workers and of the server's watch, with their time."""
    broken_off: str | None = None
    """Why it ended early."""
    unexpected_deaths: dict[str, int] = field(default_factory=dict)
    """Number of deaths by role that no fault caused."""
    memory: MemoryLog = field(default_factory=MemoryLog)

    def __post_init__(self) -> None:
        self._books = Bookkeeper(self.config.out / "shards")
        self._calm = deque[tuple[float, int]](maxlen=int(CALM_S / POLL_S))  # (seconds, evaluations) of calm polls
        self._start = time.monotonic()
        self._next_look = 0.0
        self._first_rate = 0.0  # of undisturbed play, before the first fault
        self._n_inflicted = Counter[str]()
        self._known: set[str] = set()  # findings of the accounts up to the last fault

    @property
    def now(self) -> float:
        return time.monotonic() - self._start

    def play(self) -> None:
        """Play for the configured time, fault after fault; ends early if play does not recover or a signal arrives."""
        config, out = self.config, self.config.out
        self._say("publishing the first networks", is_line=True)
        # As many as are served at once, so that the server's memory is in its usual state before and after a swap.
        for seed in range(config.seed, config.seed + SERVED_VERSIONS):
            publish(create_network(config.preset, seed=seed), repository=out / "models", seed=seed)
        (out / "logs").mkdir()
        with (
            EmbeddedTriton(self._server()) as triton,
            Watch(triton, on_event=self._note) as watch,
            Proxy(triton.url) as proxy,
            self._fleet(proxy.url, self._n_rounds) as fleet,
        ):
            fleet.wait_ready(self.was_stopped)
            self._start = time.monotonic()
            fleet.go()
            rng = random.Random(config.seed)
            stack = Stack(triton, proxy, fleet, self.disk, out / "models", config.preset, config.seed, rng)
            try:
                self._play(stack)
            except _Stopped:
                pass
            except BlobError as error:
                self.broken_off = str(error)
            except Exception as error:  # a bug in the soak must not lose the accounts of the rounds played
                log = out / "logs" / "soak.log"
                log.write_text(traceback.format_exc())
                self.broken_off = f"the soak itself failed: {error!r}; see {log}"
            if self.broken_off:
                self._note(self.broken_off)
            n = self._n_inflicted
            self.unexpected_deaths = {
                "worker": max(0, fleet.n_restarts - n["worker-kill"]),
                "server": max(0, watch.n_cures - n["server-kill"] - n["backend-kill"]),
            }
            self._stop(fleet)

    def _play(self, stack: Stack) -> None:
        config, end_s = self.config, 60 * self.config.minutes
        edge_s = min(60.0, end_s / 8)
        plan = schedule(config.faults, kinds=self.kinds, begin_s=edge_s, end_s=end_s - edge_s, seed=config.seed)
        self._say(f"{config.workers} workers play", is_line=True)
        self._play_calmly(stack, until=edge_s)
        self._first_rate = self._calm_rate("at first")
        for at, kind in plan:
            self._play_calmly(stack, until=max(at, self.now + LEAST_CALM_S))
            self._inflict(stack, kind)
        self._play_calmly(stack, until=end_s)
        self._calm_rate("at the end")

    def _play_calmly(self, stack: Stack, *, until: float) -> None:
        """Play undisturbed until then, and long enough to have a rate."""
        while self.now < until or not self._calm:
            self._poll(stack, is_calm=True)

    def _calm_rate(self, when: str) -> float:
        """Return the evaluations/s of recent undisturbed play."""
        rate = sum(n for _, n in self._calm) / sum(seconds for seconds, _ in self._calm)
        if rate < LEAST_RATE * self._first_rate or not rate:
            raise BrokenOff(
                f"expected play at {LEAST_RATE:.0%} of its first {self._first_rate:,.0f} evaluations/s {when}, "
                f"got {rate:,.0f}: it has become slower"
            )
        return rate

    def _inflict(self, stack: Stack, kind: FaultName) -> None:
        before = self._calm_rate(f"before {kind}")
        began = self.now
        self._n_inflicted[kind] += 1
        if kind == "model-swap":
            self.memory.mark("server", began)
        with KINDS[kind](stack) as inflicted:
            self._say(f"{kind}: {inflicted.what}")
            while not (self.now - began >= inflicted.seconds and inflicted.is_over()):
                self._poll(stack)
            failure = inflicted.failure()
        ended = self.now
        recovered_s = None if failure else self._recover(stack, inflicted, ended, before)
        lowest = min((rate for at, rate in self._rates() if at >= began), default=0.0)
        if failure is None and inflicted.stops_play and lowest > NOTICED * before:
            failure = f"play went on at {lowest:,.0f} evaluations/s"
        found = FaultReport(
            kind, inflicted.what, began, ended, before, lowest, recovered_s, failure, self._new_findings()
        )  # fmt: skip
        self.reports.append(found)
        self._say(f"{len(self.reports)} of {self.config.faults}: {found}", is_line=True)
        if failure is None and recovered_s is None:
            raise BrokenOff(f"expected play to recover within {RECOVERY_TIMEOUT_S:g} s of {kind}, but it did not")

    def _recover(self, stack: Stack, inflicted: Inflicted, ended: float, before: float) -> float | None:
        """Return the seconds from the fault's end until play was back at its rate; None if that took too long.

        Play before the cure does not count: one of two backends may be dead, with a restart still to come.
        """
        cured = math.inf
        while self.now - ended < RECOVERY_TIMEOUT_S + WINDOW_S:
            if cured == math.inf and inflicted.is_cured():
                cured = self.now
            self._poll(stack)
            back = [at for at, rate in self._rates() if at >= cured and rate >= RECOVERED * before]
            if back:
                return back[0] - ended
        return None

    def _new_findings(self) -> list[str]:
        """Return the findings of the accounts that were unknown at the last fault."""
        known = self._known
        found = {text: text for text in self._books.look().faults}
        found |= {one.role: one.fault for one in judge_memory(self.memory.lives) if one.fault}
        self._known = set(found)
        return [text for key, text in found.items() if key not in known]

    def _rates(self) -> Iterator[tuple[float, float]]:
        """Yield the start and the evaluations/s of recent intervals of `WINDOW_S`."""
        recent = self.moments[-400:]
        last = 0
        for first in recent:
            while last < len(recent) and recent[last].at - first.at < WINDOW_S:
                last += 1
            if last == len(recent):
                return
            yield first.at, (recent[last].evaluations - first.evaluations) / (recent[last].at - first.at)

    def _poll(self, stack: Stack, *, is_calm: bool = False) -> None:
        """Process the workers' reports for a moment; examine memory and shards now and then."""
        if self.was_stopped():
            raise _Stopped
        stack.fleet.poll(POLL_S)
        counts = stack.fleet.counts
        moment = Moment(self.now, int(counts["rounds"]), int(counts["evaluations"]))
        self._add(moment, is_calm=is_calm)
        self._say(f"{moment.rounds:,} rounds, {len(self.reports)} faults")
        if moment.at >= self._next_look:
            self._next_look = moment.at + LOOK_S
            self.memory.record(moment.at, _processes(stack))
            self._books.look(int(counts["records"]))
            if self.disk is not None and self.disk.n_bytes > FULL_SHARE * SIZE_BYTES:
                raise BrokenOff(
                    f"expected room for records, got {self.disk.n_bytes / 1e9:.1f} GB in memory; use fewer --minutes"
                )
        if stack.fleet.is_done:
            raise BrokenOff(f"expected play to go on, but all of {self._n_rounds:,} rounds were played")

    def _add(self, moment: Moment, *, is_calm: bool) -> None:
        if is_calm and self.moments:
            before = self.moments[-1]
            self._calm.append((moment.at - before.at, moment.evaluations - before.evaluations))
        self.moments.append(moment)

    def _stop(self, fleet: Fleet) -> None:
        """Stop the workers in order, and account for what their last processes report."""
        self._say("stopping", is_line=True)
        fleet.stop()
        while not fleet.is_done:
            fleet.poll(POLL_S)
        if fleet.fault is not None:
            self.broken_off = self.broken_off or f"workers did not stop in order: {fleet.fault}"
        self._books.compare(fleet.rounds_of_processes, n_under_way=GAMES)

    def settle(self) -> Rounds:
        """Play the rounds under way when play stopped, as the same run; then account for all rounds."""
        self._books.look()
        n_rounds = self._books.n_begun
        self._say("playing the rounds under way", is_line=True)
        try:
            with EmbeddedTriton(self._server()) as triton, self._fleet(triton.url, n_rounds) as fleet:
                fleet.wait_ready()
                fleet.go()
                deadline = time.monotonic() + SETTLE_TIMEOUT_S
                while not fleet.is_done:
                    fleet.poll(POLL_S)
                    if time.monotonic() > deadline:
                        raise FleetError(f"expected all workers to end within {SETTLE_TIMEOUT_S:g} s, but they did not")
        except (FleetError, ServingError) as error:
            self.broken_off = self.broken_off or f"the rounds under way at the end could not be played: {error}"
        self._say("accounting for every round", is_line=True)
        return self._books.settle(n_rounds)

    def _server(self) -> ServerConfig:
        return ServerConfig(self.config.out / "models", log_file=self.config.out / "logs" / "triton.log")

    def _fleet(self, url: str, n_rounds: int) -> Fleet:
        one = WorkerConfig(
            index=0,
            workers=self.config.workers,
            rounds=n_rounds,
            seed=self.config.seed,
            out=self.config.out,
            evaluator=EvaluatorConfig(url=url, server_timeout_s=SERVER_TIMEOUT_S),
            deal=DealConfig(players=(4,), cards=(5,)),  # every round has a decision, so it leaves a record
            games=GAMES,
            shard_seconds=SHARD_S,
        )
        workers = [replace(one, index=index) for index in range(self.config.workers)]
        return Fleet(workers, logs=self.config.out / "logs", on_event=self._note)

    @property
    def _n_rounds(self) -> int:
        """More rounds than can be played."""
        return int((self.config.minutes + 10) * ROUNDS_PER_MINUTE)

    def _say(self, text: str, *, is_line: bool = False) -> None:
        self.show(f"{self.now:7.1f} s  {text}", min(self.now, 60 * self.config.minutes), is_line=is_line)

    def _note(self, text: str) -> None:
        self.events.append((self.now, text))


def _processes(stack: Stack) -> dict[int, str]:
    """Return the processes whose memory is recorded, with their roles."""
    found = {os.getpid(): "soak", **dict.fromkeys(stack.fleet.pids, "worker")}
    with contextlib.suppress(psutil.Error):
        if stack.triton.pid:
            server = psutil.Process(stack.triton.pid)
            found |= {server.pid: "server", **{child.pid: "backend" for child in server.children()}}
    return found
