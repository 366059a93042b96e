# SPDX-License-Identifier: Apache-2.0
"""A soak test under way: the stack, its faults one after the other, and the accounts at the end.

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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final, get_args

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
from perf.soak.memory import Scales, judge_memory
from perf.soak.proxy import Proxy
from perf.soak.rounds import Bookkeeper, Rounds
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from serving.errors import ServingError
from serving.watch import Watch
from training.network import create_network

POLL_S: Final = 0.5
LOOK_S: Final = 5.0
"""Between two looks at memory and shards."""
RECOVERED: Final = 0.7
"""Of the rate before a fault: back at so much, play has recovered."""
WINDOW_S: Final = 4.0
"""A rate is taken over so long: workers report about once a second."""
CALM_S: Final = 20.0
"""Of undisturbed play, the last, is the rate before a fault."""
LEAST_CALM_S: Final = 6.0
"""Between a recovery and the next fault."""
LEAST_RATE: Final = 0.5
"""Of the first undisturbed rate: each recovery is to the rate before its fault, so all together might sink."""
NOTICED: Final = 0.5
"""Of the rate before a fault that stops play: above that it has not."""
RECOVERY_TIMEOUT_S: Final = 60.0
SETTLE_TIMEOUT_S: Final = 300.0
FULL_SHARE: Final = 0.8
SERVER_TIMEOUT_S: Final = 600.0
"""How long workers wait for a server: longer than any fault lasts."""
SHARD_S: Final = 2.0
GAMES: Final = 256
ROUNDS_PER_MINUTE: Final = 60_000
"""More than can be played; a worker keeps 24 bytes of each."""


@dataclass(frozen=True, kw_only=True)
class SoakConfig:
    """Play against a server of its own with faults on a schedule; then account for every round and every megabyte."""

    minutes: float = 20.0
    """How long to play; longer where a fault takes long to recover from."""
    faults: int = 16
    """How many, spread over the time."""
    kinds: tuple[FaultName, ...] = get_args(FaultName)
    """Kinds of fault; every one comes before any comes again. `disk-full` takes the right to mount (root)."""
    workers: int = 2
    """Self-play processes."""
    preset: str = "small"
    """Shape of the untrained networks that are served."""
    seed: int = 0
    """Of the rounds, the schedule and the networks."""
    out: Path = field(default_factory=partial(fresh_folder, "soak"))
    """Folder for records, logs, soak.json and timeline.png; expected not to exist, or to be empty."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the result as JSON on standard output."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What all workers had done at a moment."""

    at: float
    """Seconds since play began."""
    rounds: int
    evaluations: int


class BrokenOff(BlobError):
    """There is no going on with faults, for play did not come back, or nothing is left to play."""


@dataclass
class Soak:
    """One soak test under way."""

    config: SoakConfig
    disk: SmallDisk | None
    kinds: Sequence[FaultName]
    show: Callable[[float, str, bool], None]
    """Told the seconds gone, what happens, and whether that is worth a line."""
    was_stopped: Callable[[], bool]
    moments: list[Moment] = field(default_factory=list)
    reports: list[FaultReport] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    """What workers and the server's watch said, and when."""
    broken_off: str | None = None
    unasked: dict[str, int] = field(default_factory=dict)
    """Deaths that no fault of ours caused, by role."""
    scales: Scales = field(default_factory=Scales)

    def __post_init__(self) -> None:
        self._books = Bookkeeper(self.config.out / "shards")
        self._calm: list[tuple[float, float]] = []  # (seconds, evaluations) of undisturbed polls
        self._start = time.monotonic()
        self._next_look = 0.0
        self._first_rate = 0.0  # of undisturbed play, before the first fault
        self._n_inflicted = Counter[str]()
        self._wrong: list[str] = []  # what the accounts had found wrong by the last fault

    @property
    def now(self) -> float:
        return time.monotonic() - self._start

    def play(self) -> None:
        """Play to the end of the time, fault after fault; ends early when play does not recover or is interrupted."""
        config, out = self.config, self.config.out
        self.show(0.0, "publishing the first networks", True)
        # As many as are served at once: the server's memory is then that of every day, before and after a swap.
        for seed in range(config.seed, config.seed + SERVED_VERSIONS):
            publish(create_network(config.preset, seed=seed), repository=out / "models", seed=seed)
        (out / "logs").mkdir()
        server = ServerConfig(out / "models", log_file=out / "logs" / "triton.log")
        with (
            EmbeddedTriton(server) as triton,
            Watch(triton, on_event=self._note) as watch,
            Proxy(triton.url) as proxy,
            self._fleet(proxy.url, _plenty(config)) as fleet,
        ):
            fleet.wait_ready(self.was_stopped)
            self._start = time.monotonic()
            fleet.go()
            stack = Stack(
                triton, proxy, fleet, self.disk, out / "models", config.preset, random.Random(config.seed),
                next_seed=config.seed + SERVED_VERSIONS,
            )  # fmt: skip
            try:
                self._play(stack)
            except BlobError as error:
                self.broken_off = str(error)
            except Exception as error:  # a fault of the soak itself must not lose the accounts of what was played
                (out / "logs" / "soak.log").write_text(traceback.format_exc())
                self.broken_off = f"the soak itself failed: {error!r}; see {out / 'logs' / 'soak.log'}"
            if self.broken_off:
                self._note(self.broken_off)
            asked = self._n_inflicted
            self.unasked = {
                "worker": max(0, fleet.n_restarts - asked["worker-kill"]),
                "server": max(0, watch.n_cures - asked["server-kill"] - asked["backend-kill"]),
            }
            self._stop(fleet)

    def _play(self, stack: Stack) -> None:
        end_s = 60 * self.config.minutes
        edge_s = min(60.0, end_s / 8)
        self.show(self.now, f"{self.config.workers} workers play", True)
        self._play_calmly(stack, until=edge_s)
        if self.was_stopped():
            return
        self._first_rate = self._calm_rate("at first")
        for at, kind in schedule(
            self.config.faults, kinds=self.kinds, begin_s=edge_s, end_s=end_s - edge_s, seed=self.config.seed
        ):
            self._play_calmly(stack, until=max(at, self.now + LEAST_CALM_S))
            if self.was_stopped():
                return
            self._inflict(stack, kind)
            if self.was_stopped():
                return
        self._play_calmly(stack, until=end_s)
        if not self.was_stopped():
            self._calm_rate("at the end")

    def _play_calmly(self, stack: Stack, *, until: float) -> None:
        """Play undisturbed until then, and as long as it takes to have a rate."""
        while (self.now < until or not self._calm) and not self.was_stopped():
            self._poll(stack, is_calm=True)

    def _calm_rate(self, when: str) -> float:
        """Evaluations a second of undisturbed play, lately."""
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
            self.scales.mark("server", began)
        with KINDS[kind](stack) as inflicted:
            self.show(began, f"{kind}: {inflicted.what}", False)
            while not (self.now - began >= inflicted.seconds and inflicted.is_over()):
                self._poll(stack)
                if self.was_stopped():
                    return
            failure = inflicted.failure()
        ended = self.now
        recovered_s = None if failure else self._recover(stack, inflicted, ended, before)
        if self.was_stopped():
            return
        lowest = min((rate for at, rate in self._rates() if at >= began), default=0.0)
        if failure is None and inflicted.stops_play and lowest > NOTICED * before:
            failure = f"play went on at {lowest:,.0f} evaluations/s"
        found = FaultReport(
            kind, inflicted.what, began, ended, before, lowest, recovered_s, failure, self._newly_wrong()
        )  # fmt: skip
        self.reports.append(found)
        self.show(self.now, f"{len(self.reports)} of {self.config.faults}: {found}", True)
        if failure is None and recovered_s is None:
            raise BrokenOff(f"expected play to recover within {RECOVERY_TIMEOUT_S:g} s of {kind}, but it did not")

    def _recover(self, stack: Stack, inflicted: Inflicted, ended: float, before: float) -> float | None:
        """Seconds from the fault's end until play was back at its rate; None if it was not in time.

        What play is before the cure says nothing: one of two backends may be dead, and a restart yet to come.
        """
        cured = math.inf
        while self.now - ended < RECOVERY_TIMEOUT_S + WINDOW_S and not self.was_stopped():
            if cured == math.inf and inflicted.is_cured():
                cured = self.now
            self._poll(stack)
            back = [at for at, rate in self._rates() if at >= cured and rate >= RECOVERED * before]
            if back:
                return back[0] - ended
        return None

    def _newly_wrong(self) -> list[str]:
        """What the accounts find wrong that they did not at the last fault."""
        before = self._wrong
        found = {text: text for text in self._books.look().faults}
        found |= {one.role: one.fault for one in judge_memory(self.scales.lives) if one.fault}
        self._wrong = list(found)
        return [text for key, text in found.items() if key not in before]

    def _rates(self) -> Iterator[tuple[float, float]]:
        """Lately, from when on for `WINDOW_S` evaluations came at what rate (per second)."""
        recent = self.moments[-400:]
        last = 0
        for first in recent:
            while last < len(recent) and recent[last].at - first.at < WINDOW_S:
                last += 1
            if last == len(recent):
                return
            yield first.at, (recent[last].evaluations - first.evaluations) / (recent[last].at - first.at)

    def _poll(self, stack: Stack, *, is_calm: bool = False) -> None:
        """Listen to the workers for a moment; note what they have done, and now and then what everything weighs."""
        stack.fleet.poll(POLL_S)
        counts = stack.fleet.counts
        moment = Moment(self.now, int(counts["rounds"]), int(counts["evaluations"]))
        self._add(moment, is_calm=is_calm)
        self.show(moment.at, f"{moment.rounds:,} rounds, {len(self.reports)} faults", False)
        if moment.at >= self._next_look:
            self._next_look = moment.at + LOOK_S
            self.scales.weigh(moment.at, _processes(stack))
            self._books.look(int(counts["records"]))
            if self.disk is not None and self.disk.n_bytes > FULL_SHARE * SIZE_BYTES:
                raise BrokenOff(
                    f"expected room for records, got {self.disk.n_bytes / 1e9:.1f} GB in memory; end sooner"
                )
        if stack.fleet.is_done:
            raise BrokenOff(f"expected play to go on, but all of {_plenty(self.config):,} rounds were played")

    def _add(self, moment: Moment, *, is_calm: bool) -> None:
        if is_calm and self.moments:
            before = self.moments[-1]
            self._calm.append((moment.at - before.at, moment.evaluations - before.evaluations))
            del self._calm[: -int(CALM_S / POLL_S)]
        self.moments.append(moment)

    def _stop(self, fleet: Fleet) -> None:
        """An orderly end, and the books of the processes that had it."""
        self.show(self.now, "stopping", True)
        fleet.stop()
        while not fleet.is_done:
            fleet.poll(POLL_S)
        if fleet.fault is not None:
            self.broken_off = self.broken_off or f"workers did not stop in order: {fleet.fault}"
        self._books.compare(fleet.rounds_of_processes, n_under_way=GAMES)

    def settle(self) -> Rounds:
        """Play what was under way when play was stopped, as the same run; then account for all rounds."""
        self._books.look()
        n_rounds = self._books.n_begun
        self.show(self.now, "playing what was under way", True)
        server = ServerConfig(self.config.out / "models", log_file=self.config.out / "logs" / "triton.log")
        try:
            with EmbeddedTriton(server) as triton, self._fleet(triton.url, n_rounds) as fleet:
                fleet.wait_ready()
                fleet.go()
                deadline = time.monotonic() + SETTLE_TIMEOUT_S
                while not fleet.is_done:
                    fleet.poll(POLL_S)
                    if time.monotonic() > deadline:
                        raise FleetError(f"expected all workers to end within {SETTLE_TIMEOUT_S:g} s, but they did not")
        except (FleetError, ServingError) as error:
            self.broken_off = self.broken_off or f"the rounds under way at the end could not be played: {error}"
        self.show(self.now, "accounting for every round", True)
        return self._books.settle(n_rounds)

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

    def _note(self, text: str) -> None:
        self.events.append((self.now, text))


def _plenty(config: SoakConfig) -> int:
    return int((config.minutes + 10) * ROUNDS_PER_MINUTE)


def _processes(stack: Stack) -> dict[int, str]:
    """The processes that are weighed, and what each is."""
    found = {os.getpid(): "soak", **dict.fromkeys(stack.fleet.pids, "worker")}
    with contextlib.suppress(psutil.Error):
        if stack.triton.pid:
            server = psutil.Process(stack.triton.pid)
            found |= {server.pid: "server", **{child.pid: "backend" for child in server.children()}}
    return found
