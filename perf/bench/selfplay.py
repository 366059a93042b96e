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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil

from clients.connect import EvaluatorConfig
from clients.files import write_whole
from clients.local import latest_model_file
from clients.selfplay.fleet import Fleet
from clients.selfplay.sizing import Size, choose_size
from clients.selfplay.worker import WorkerConfig, play
from clients.triton.evaluator import TritonEvaluator
from clients.triton.statistics import ModelStatistics
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.contract import MODEL_NAME
from mcts_ext.pool import SelfPlayPool
from perf.bench import served
from perf.bench.measure import MIN_REPEATS, Figure, Plan, Result
from perf.bench.selfplay_report import draw, points_table
from perf.bench.served import Work
from perf.load.sender.rows import search_positions
from serving.embedded import EmbeddedTriton, own_server
from ui.console import csv_of

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
        return _search(self.setting)

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


class _Watch:
    """Measures one window after another by what the server counts."""

    def __init__(self, statistics: ModelStatistics, cpu_seconds: served.CpuSeconds) -> None:
        self._statistics = statistics
        self._cpu_seconds = cpu_seconds
        self.begin()

    def begin(self) -> None:
        """A window starts now."""
        self._counts = self._statistics.read(timeout_s=STATISTICS_TIMEOUT_S)
        self.began, self._cpu = time.monotonic(), self._cpu_seconds()

    def end(self) -> Work:
        """What happened since."""
        counts = self._statistics.read(timeout_s=STATISTICS_TIMEOUT_S) - self._counts
        seconds = time.monotonic() - self.began
        spent = [after - before for before, after in zip(self._cpu, self._cpu_seconds(), strict=True)]
        return Work(counts.execution_rows, seconds, spent, counts.mean_execution_rows or 0.0)


def run(plan: Plan, *, repository: Path = served.REPOSITORY, pace: Pace | None = None) -> Result:
    """Measure every case against one server."""
    pace = pace or (QUICK_PACE if plan.quick else FULL_PACE)
    with contextlib.ExitStack() as stack:
        repository = stack.enter_context(served.served_repository(plan.say, path=repository))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blobzero-bench-")))
        own = own_server(repository, say=plan.say, log_file=folder / "triton.log", is_watched=False)
        triton = stack.enter_context(own)
        statistics = stack.enter_context(ModelStatistics(triton.url, model=MODEL_NAME))
        version = int(latest_model_file(repository, MODEL_NAME).parent.name)
        settings = sorted({case.setting for case in pace.cases})
        plan.say(f"selfplay: {pace.whole_rounds} whole rounds a setting")
        per_round = _evaluations_per_round(triton.url, settings, pace.whole_rounds)
        plan.say("selfplay: one client, playing and under pure load in turns")
        pairs = _beside_pure_load(triton, statistics, pace)
        points, rates = [], {}
        for case in pace.cases:
            out = folder / f"{case.workers}x{case.determinizations}x{case.simulations}"
            windows, worker_mb = _play(triton, statistics, case, pace, out)
            point = _point(case, windows, worker_mb, per_round[case.setting])
            rates[case] = [60 * window.rows_per_s / per_round[case.setting] for window in windows]
            points.append(point)
            plan.say(
                f"selfplay: {case.determinizations} x {case.simulations}, {case.workers} x {case.size.games} games: "
                f"{point['rounds_per_min']:,.0f} rounds/min, {point['mean_execution_rows']:.0f} rows/execution"
            )
    headline = [Figure.of(rates[case]) for case in rates if case.setting == HEADLINE]
    plan.out.mkdir(parents=True, exist_ok=True)
    csv, picture = plan.out / "selfplay.csv", plan.out / "selfplay.png"
    write_whole(csv, csv_of(points))
    write_whole(picture, draw(points))
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
            "ratio_to_pure_load": Figure.of([played.rows_per_s / pure.rows_per_s for played, pure in pairs]),
            "evaluations_per_s_one_client": Figure.of([played.rows_per_s for played, _ in pairs]),
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


def _search(setting: tuple[int, int]) -> SearchConfig:
    return SearchConfig(determinizations=setting[0], simulations=setting[1])


def _pool(search: SearchConfig, *, rounds: int, games: int, groups: int = 1) -> SelfPlayPool:
    return SelfPlayPool(range(rounds), seed=0, deal=DealConfig(), search=search, n_games=games, n_groups=groups)


def _evaluations_per_round(url: str, settings: list[tuple[int, int]], rounds: int) -> dict[tuple[int, int], float]:
    """Of whole rounds, played in this process, all settings at a time so that their small batches share executions."""

    def play_all(setting: tuple[int, int]) -> float:
        pool = _pool(_search(setting), rounds=rounds, games=rounds)
        with TritonEvaluator(url) as evaluator:
            play(pool, evaluator, stop=threading.Event(), on_batch=lambda: None, on_version=lambda version: None)
        return pool.stats["evaluations"] / pool.stats["rounds"]

    with ThreadPoolExecutor() as threads:
        return dict(zip(settings, threads.map(play_all, settings), strict=True))


def _beside_pure_load(triton: EmbeddedTriton, statistics: ModelStatistics, pace: Pace) -> list[tuple[Work, Work]]:
    """Windows of play by one worker, here in this process, each followed by one of pure load.

    `play` is interrupted where it has taken in a batch: what it has at the server meanwhile is answered and waits.
    """
    pairs: list[tuple[Work, Work]] = []
    positions = search_positions(0)
    stop = threading.Event()
    cpu_seconds = partial(served.own_cpu, triton)
    watch = _Watch(statistics, cpu_seconds)
    is_warm, warm_up_s = False, pace.warm_up_s
    size = Case(1, *HEADLINE).size
    pool = _pool(_search(HEADLINE), rounds=ENDLESS, games=size.games, groups=size.groups)
    with TritonEvaluator(triton.url) as playing, TritonEvaluator(triton.url) as loading:

        def on_batch() -> None:
            nonlocal is_warm, warm_up_s
            passed_s = time.monotonic() - watch.began
            if passed_s < (pace.window_s if is_warm else warm_up_s):
                return
            if is_warm:
                window = watch.end()
                time.sleep(IN_FLIGHT_S)
                batch = round(window.mean_execution_rows)
                pure = served.closed_loop(loading, positions, batch=batch, seconds=pace.pure_s, cpu_seconds=cpu_seconds)
                pairs.append((window, pure))
                if len(pairs) == MIN_REPEATS:
                    stop.set()
                warm_up_s = IN_FLIGHT_S
            is_warm = not is_warm
            watch.begin()

        play(pool, playing, stop=stop, on_batch=on_batch, on_version=lambda version: None)
    return pairs


def _play(
    triton: EmbeddedTriton, statistics: ModelStatistics, case: Case, pace: Pace, out: Path
) -> tuple[list[Work], float]:
    """Windows of a fleet of its own, and resident megabytes of its largest worker."""
    (out / "shards").mkdir(parents=True)
    one = WorkerConfig(
        index=0,
        workers=case.workers,
        rounds=ENDLESS,
        seed=0,
        out=out,
        evaluator=EvaluatorConfig(url=triton.url),
        search=case.search,
        games=case.size.games,
        groups=case.size.groups,
    )
    workers = [replace(one, index=index) for index in range(case.workers)]
    with Fleet(workers, logs=out / "logs") as fleet:
        fleet.wait_ready()
        processes = [psutil.Process(pid) for pid in fleet.pids]

        def cpu_seconds() -> tuple[float, float, float]:
            times, cpu = [process.cpu_times() for process in processes], triton.cpu_seconds()
            return sum(spent.user + spent.system for spent in times), cpu.server_s, cpu.backend_s

        fleet.go()
        fleet.poll(pace.warm_up_s)
        watch = _Watch(statistics, cpu_seconds)
        windows = []
        for _ in range(MIN_REPEATS):
            fleet.poll(pace.window_s)
            windows.append(watch.end())
            watch.begin()
        worker_mb = max(process.memory_info().rss for process in processes) / 1e6
        fleet.stop()
        while not fleet.is_done:
            fleet.poll(1.0)
    return windows, worker_mb


def _point(case: Case, windows: list[Work], worker_mb: float, evaluations_per_round: float) -> dict[str, Any]:
    us = served.us_per_row(windows)
    evaluations_per_s = median(window.rows_per_s for window in windows)
    return {
        "workers": case.workers,
        "determinizations": case.determinizations,
        "simulations": case.simulations,
        "games_per_worker": case.size.games,
        "groups": case.size.groups,
        "rounds_per_min": round(60 * evaluations_per_s / evaluations_per_round, 1),
        "evaluations_per_s": round(evaluations_per_s, 1),
        "evaluations_per_round": round(evaluations_per_round, 1),
        "mean_execution_rows": round(median(window.mean_execution_rows for window in windows), 1),
        **{f"{part}_us_per_evaluation": found for part, found in us.items()},
        "client_us_per_round": round(us["client"] * evaluations_per_round, 1),
        "client_mb_per_worker": round(worker_mb, 1),
    }
