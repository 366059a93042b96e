# SPDX-License-Identifier: Apache-2.0
"""Self-play through the served model: rounds/min over the number of workers and three settings of the search.

All rounds of a pool start together, so the rounds that finish within a short window say little. What is measured:

- evaluations/s, rows per execution and CPU: in windows of a running fleet, after a warm-up, from what server and kernel
  count. A quick run sees the first part of the rounds, a full one more than whole rounds at the smaller settings.
- evaluations per round: from whole rounds, all played to their end. It depends on search and network alone.
- rounds/min = 60 x evaluations/s / evaluations per round.
- the ratio to pure load: one client process plays for a window, then the same process asks the same server for batches
  of the same size without playing, in turns.
"""

import contextlib
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from numpy.typing import NDArray

from clients.connect import EvaluatorConfig
from clients.local import latest_model_file
from clients.selfplay.fleet import Fleet
from clients.selfplay.sizing import Size, choose_size
from clients.selfplay.worker import WorkerConfig, play
from clients.triton.evaluator import TritonEvaluator
from clients.triton.statistics import ModelStatistics
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.contract import MODEL_NAME
from mcts_ext.pool import SelfPlayPool
from perf.bench.measure import MIN_REPEATS, Figure, Plan, Result
from perf.bench.selfplay_report import draw, points_table, write_csv
from perf.bench.served import (
    N_POSITIONS,
    REPOSITORY,
    CpuSeconds,
    Split,
    Work,
    closed_loop,
    own_cpu,
    positions_in_play,
    served,
    served_repository,
)
from serving.embedded import EmbeddedTriton

SETTINGS: Final = ((2, 20), (3, 30), (5, 50))
HEADLINE: Final = (3, 30)
WORKERS: Final = (1, 2, 4, 8, 32)
ENDLESS: Final = 1_000_000
"""More rounds than any case plays."""
STATISTICS_TIMEOUT_S: Final = 10.0
IN_FLIGHT_S: Final = 0.1
"""After which what was in flight has been answered."""


@dataclass(frozen=True)
class Case:
    """A fleet and its search."""

    workers: int
    determinizations: int
    simulations: int

    @property
    def setting(self) -> tuple[int, int]:
        return self.determinizations, self.simulations

    @property
    def search(self) -> SearchConfig:
        return SearchConfig(determinizations=self.determinizations, simulations=self.simulations)

    @property
    def size(self) -> Size:
        """As `blobzero selfplay` chooses it."""
        return choose_size(self.workers, "auto", "auto", network_is_here=True)


FULL: Final = tuple(Case(workers, *setting) for setting in SETTINGS for workers in WORKERS)
QUICK: Final = (Case(1, 2, 20), Case(1, 3, 30), Case(32, 3, 30), Case(1, 5, 50))


@dataclass(frozen=True)
class Pace:
    """Which cases, and how long each is looked at."""

    cases: tuple[Case, ...]
    warm_up_s: float
    window_s: float
    pure_s: float
    """A window of pure load."""
    whole_rounds: int
    """Played to their end for the evaluations per round."""


QUICK_PACE: Final = Pace(QUICK, warm_up_s=0.8, window_s=0.5, pure_s=0.3, whole_rounds=16)
FULL_PACE: Final = Pace(FULL, warm_up_s=4.0, window_s=2.0, pure_s=2.0, whole_rounds=128)


@dataclass(frozen=True)
class Window:
    """What a fleet did for a while."""

    work: Work
    mean_execution_rows: float


@dataclass(frozen=True)
class Played:
    """A case, measured."""

    windows: list[Window]
    worker_mb: float
    """Resident memory of the largest worker."""


@dataclass
class _Server:
    """The server of all cases, and rows to ask it about."""

    triton: EmbeddedTriton
    statistics: ModelStatistics
    positions: NDArray[np.uint8] = field(default_factory=lambda: positions_in_play(N_POSITIONS, seed=0))

    def fleet_cpu(self, workers: list[psutil.Process]) -> tuple[float, float, float]:
        """Processor seconds of these clients, of the server and of its backend."""
        times = [worker.cpu_times() for worker in workers]
        cpu = self.triton.cpu_seconds()
        return sum(spent.user + spent.system for spent in times), cpu.server_s, cpu.backend_s


class _Watch:
    """Measures one window after another by what the server counts."""

    def __init__(self, statistics: ModelStatistics, cpu_seconds: CpuSeconds) -> None:
        self._statistics = statistics
        self._cpu_seconds = cpu_seconds
        self.begin()

    def begin(self) -> None:
        """A window starts now."""
        self._counts = self._statistics.read(timeout_s=STATISTICS_TIMEOUT_S)
        self.began, self._cpu = time.monotonic(), self._cpu_seconds()

    def end(self) -> Window:
        """What happened since."""
        counts = self._statistics.read(timeout_s=STATISTICS_TIMEOUT_S).minus(self._counts)
        seconds = time.monotonic() - self.began
        spent = [after - before for before, after in zip(self._cpu, self._cpu_seconds(), strict=True)]
        return Window(Work(counts.execution_rows, seconds, *spent), counts.mean_execution_rows or 0.0)


def run(plan: Plan, *, repository: Path = REPOSITORY, pace: Pace | None = None) -> Result:
    """Measure every case against one server."""
    pace = pace or (QUICK_PACE if plan.quick else FULL_PACE)
    with contextlib.ExitStack() as stack:
        repository = stack.enter_context(served_repository(plan.say, path=repository))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blobzero-bench-")))
        plan.say(f"starting Triton on {repository}")
        server = _Server(*stack.enter_context(served(repository, log_file=folder / "triton.log")))
        version = int(latest_model_file(repository, MODEL_NAME).parent.name)
        settings = sorted({case.setting for case in pace.cases})
        plan.say(f"selfplay: {pace.whole_rounds} whole rounds a setting")
        per_round = _evaluations_per_round(server, settings, pace.whole_rounds)
        plan.say("selfplay: one client, playing and under pure load in turns")
        pairs = _beside_pure_load(server, pace)
        points, rates = [], {}
        for case in pace.cases:
            played = _play(server, case, pace, folder / f"{case.workers}x{case.determinizations}x{case.simulations}")
            point = _point(case, played, per_round[case.setting])
            rates[case] = [60 * window.work.rows_per_s / per_round[case.setting] for window in played.windows]
            points.append(point)
            plan.say(
                f"selfplay: {case.determinizations} x {case.simulations}, {case.workers} x {case.size.games} games: "
                f"{point['rounds_per_min']:,.0f} rounds/min, {point['mean_execution_rows']:.0f} rows/execution"
            )
    headline = [Figure.of(rates[case]) for case in rates if case.setting == HEADLINE]
    plan.out.mkdir(parents=True, exist_ok=True)
    csv, picture = plan.out / "selfplay.csv", plan.out / "selfplay.png"
    write_csv(csv, points)
    draw(picture, points)
    return Result(
        level="selfplay",
        config={
            "quick": plan.quick,
            "players": 4,
            "cards": 5,
            "model_version": version,
            "warm_up_s": pace.warm_up_s,
            "window_s": pace.window_s,
            "pure_load_s": pace.pure_s,
            "whole_rounds": pace.whole_rounds,
        },
        repeats=MIN_REPEATS,
        figures={
            "rounds_per_min": max(headline, key=lambda found: found.median),
            "ratio_to_pure_load": Figure.of([own.work.rows_per_s / pure.rows_per_s for own, pure in pairs]),
            "evaluations_per_s_one_client": Figure.of([own.work.rows_per_s for own, _ in pairs]),
            "rows_per_s_pure_load": Figure.of([pure.rows_per_s for _, pure in pairs]),
        },
        points=points,
        tables=[points_table(points)],
        files=[csv, picture],
        notes=[
            f"rounds/min = 60 x evaluations/s in windows of {pace.window_s:g} s / evaluations per round, the latter "
            f"from {pace.whole_rounds} whole rounds a setting"
        ],
    )


def _pool(setting: tuple[int, int], *, rounds: int, games: int, groups: int = 1) -> SelfPlayPool:
    return SelfPlayPool(
        np.arange(rounds, dtype=np.int64),
        seed=0,
        deal=DealConfig(),
        search=SearchConfig(determinizations=setting[0], simulations=setting[1]),
        n_games=games,
        n_groups=groups,
    )


def _evaluations_per_round(
    server: _Server, settings: list[tuple[int, int]], rounds: int
) -> dict[tuple[int, int], float]:
    """Of whole rounds, played in this process, all settings at a time so that their small batches share executions."""

    def play_all(setting: tuple[int, int]) -> float:
        pool = _pool(setting, rounds=rounds, games=rounds)
        with TritonEvaluator(server.triton.url) as evaluator:
            play(pool, evaluator, stop=threading.Event(), on_batch=lambda: None, on_version=lambda version: None)
        return pool.stats["evaluations"] / pool.stats["rounds"]

    with ThreadPoolExecutor() as threads:
        return dict(zip(settings, threads.map(play_all, settings), strict=True))


def _beside_pure_load(server: _Server, pace: Pace) -> list[tuple[Window, Work]]:
    """Windows of play by one worker, here in this process, each followed by one of pure load.

    `play` is interrupted where it has taken in a batch: what it has at the server meanwhile is answered and waits.
    """
    pairs: list[tuple[Window, Work]] = []
    stop = threading.Event()
    cpu_seconds = partial(own_cpu, server.triton)
    watch = _Watch(server.statistics, cpu_seconds)
    is_warm, warm_up_s = False, pace.warm_up_s
    size = Case(1, *HEADLINE).size
    pool = _pool(HEADLINE, rounds=ENDLESS, games=size.games, groups=size.groups)
    with TritonEvaluator(server.triton.url) as playing, TritonEvaluator(server.triton.url) as loading:

        def on_batch() -> None:
            nonlocal is_warm, warm_up_s
            passed_s = time.monotonic() - watch.began
            if passed_s < (pace.window_s if is_warm else warm_up_s):
                return
            if is_warm:
                window = watch.end()
                time.sleep(IN_FLIGHT_S)
                batch = round(window.mean_execution_rows)
                pure = closed_loop(loading, server.positions, batch=batch, seconds=pace.pure_s, cpu_seconds=cpu_seconds)
                pairs.append((window, pure))
                if len(pairs) == MIN_REPEATS:
                    stop.set()
                warm_up_s = IN_FLIGHT_S
            is_warm = not is_warm
            watch.begin()

        play(pool, playing, stop=stop, on_batch=on_batch, on_version=lambda version: None)
    return pairs


def _play(server: _Server, case: Case, pace: Pace, out: Path) -> Played:
    """A fleet of its own, watched for some windows."""
    (out / "shards").mkdir(parents=True)
    workers = [
        WorkerConfig(
            index=index,
            workers=case.workers,
            rounds=ENDLESS,
            seed=0,
            out=out,
            evaluator=EvaluatorConfig(url=server.triton.url),
            search=case.search,
            games=case.size.games,
            groups=case.size.groups,
        )
        for index in range(case.workers)
    ]
    with Fleet(workers, logs=out / "logs") as fleet:
        fleet.wait_ready()
        processes = [psutil.Process(pid) for pid in fleet.pids]
        fleet.go()
        fleet.poll(pace.warm_up_s)
        watch = _Watch(server.statistics, partial(server.fleet_cpu, processes))
        windows = []
        for _ in range(MIN_REPEATS):
            fleet.poll(pace.window_s)
            windows.append(watch.end())
            watch.begin()
        worker_mb = max(process.memory_info().rss for process in processes) / 1e6
        fleet.stop()
        while not fleet.is_done:
            fleet.poll(1.0)
    return Played(windows, worker_mb)


def _point(case: Case, played: Played, evaluations_per_round: float) -> dict[str, Any]:
    split = Split.of([window.work for window in played.windows])
    evaluations_per_s = Figure.of([window.work.rows_per_s for window in played.windows]).median
    return {
        "workers": case.workers,
        "determinizations": case.determinizations,
        "simulations": case.simulations,
        "games_per_worker": case.size.games,
        "groups": case.size.groups,
        "rounds_per_min": round(60 * evaluations_per_s / evaluations_per_round, 1),
        "evaluations_per_s": round(evaluations_per_s, 1),
        "evaluations_per_round": round(evaluations_per_round, 1),
        "mean_execution_rows": round(Figure.of([window.mean_execution_rows for window in played.windows]).median, 1),
        "client_us_per_evaluation": round(split.client_us, 3),
        "server_us_per_evaluation": round(split.server_us, 3),
        "backend_us_per_evaluation": round(split.backend_us, 3),
        "client_us_per_round": round(split.client_us * evaluations_per_round, 1),
        "client_mb_per_worker": round(played.worker_mb, 1),
    }
