# SPDX-License-Identifier: Apache-2.0
"""Self-play through the served model: rounds/min by the number of workers and the size of the search.

All rounds of a pool start together, so the rounds that finish within a short window say little. Therefore:

- Evaluations/s, rows per execution and CPU time are measured in windows of a running fleet, after a warm-up, from the
  counts of server and kernel. A quick run sees the first part of the rounds, a full one more than whole rounds of the
  smaller searches.
- Evaluations per round come from whole rounds; they depend only on search and network.
- rounds/min = 60 x evaluations/s / evaluations per round.
- The ratio to pure load: one client process plays for a window, then asks the same server for batches of the same size
  without playing, in turns.
"""

import contextlib
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import psutil
from numpy.typing import NDArray
from rich.table import Table

from clients.connect import EvaluatorConfig
from clients.files import write_whole
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
from perf.bench.served import Work
from perf.load.sender.rows import search_positions
from serving.embedded import EmbeddedTriton
from ui.console import csv_of, new_table
from ui.figures import new_figure, png

HEADLINE: Final = SearchConfig(determinizations=3, simulations=30)
ENDLESS: Final = 1_000_000
"""More rounds than any case plays."""
STATISTICS_TIMEOUT_S: Final = 10.0
IN_FLIGHT_S: Final = 0.1
"""Time after which the requests in flight have been answered."""


@dataclass(frozen=True)
class FleetCase:
    """A fleet and the size of its search."""

    workers: int
    determinizations: int
    simulations: int

    @property
    def search(self) -> SearchConfig:
        return SearchConfig(determinizations=self.determinizations, simulations=self.simulations)

    @property
    def size(self) -> Size:
        """Size as chosen by `blobzero selfplay`."""
        return choose_size(self.workers, "auto", "auto", network_is_here=True)


@dataclass(frozen=True)
class Pace:
    """The cases, and how long each is observed."""

    cases: tuple[FleetCase, ...]
    warm_up_s: float
    window_s: float
    pure_load_s: float
    """Length of a window of pure load."""
    whole_rounds: int
    """Number of whole rounds for the evaluations per round."""


QUICK: Final = Pace(
    (FleetCase(1, 2, 20), FleetCase(1, 3, 30), FleetCase(32, 3, 30), FleetCase(1, 5, 50)),
    warm_up_s=0.8, window_s=0.5, pure_load_s=0.3, whole_rounds=16,
)  # fmt: skip
FULL: Final = Pace(
    tuple(FleetCase(workers, *search) for search in ((2, 20), (3, 30), (5, 50)) for workers in (1, 2, 4, 8, 32)),
    warm_up_s=4.0, window_s=2.0, pure_load_s=2.0, whole_rounds=128,
)  # fmt: skip


class _Watch:
    """Measures consecutive windows by the server's counts."""

    def __init__(self, statistics: ModelStatistics, cpu_seconds: served.CpuSeconds) -> None:
        self._statistics = statistics
        self._cpu_seconds = cpu_seconds
        self.begin()

    def begin(self) -> None:
        """Begin a window."""
        self._counts = self._statistics.read(timeout_s=STATISTICS_TIMEOUT_S)
        self.began, self._cpu = time.monotonic(), self._cpu_seconds()

    def end(self) -> Work:
        """Return the work since `begin`."""
        counts = self._statistics.read(timeout_s=STATISTICS_TIMEOUT_S) - self._counts
        seconds = time.monotonic() - self.began
        return Work(
            counts.execution_rows, seconds, self._cpu_seconds() - self._cpu, counts.mean_execution_rows or 0.0
        )  # fmt: skip


def run(plan: Plan, *, repository: Path = served.REPOSITORY, pace: Pace | None = None) -> Result:
    """Measure every case with one server."""
    pace = pace or (QUICK if plan.quick else FULL)
    with contextlib.ExitStack() as stack:
        triton, model = stack.enter_context(served.served_model(plan.say, repository))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blobzero-bench-")))
        statistics = stack.enter_context(ModelStatistics(triton.url, model=MODEL_NAME))
        plan.say(f"selfplay: {pace.whole_rounds} whole rounds per search")
        per_round = _evaluations_per_round(triton.url, pace)
        plan.say("selfplay: one client, playing and under pure load in turns")
        pairs = _beside_pure_load(triton, statistics, pace)
        points: list[dict[str, Any]] = []
        rates = {}
        for case in pace.cases:
            windows, worker_mb = _play(triton, statistics, case, pace, folder / f"case-{len(points)}")
            point = _point(case, windows, worker_mb, per_round[case.search])
            rates[case] = [60 * window.rows_per_s / per_round[case.search] for window in windows]
            points.append(point)
            plan.say(
                f"selfplay: {case.determinizations} x {case.simulations}, {case.workers} x {case.size.games} games: "
                f"{point['rounds_per_min']:,.0f} rounds/min, {point['mean_execution_rows']:.0f} rows/execution"
            )
    headline = [Figure.of(rates[case]) for case in rates if case.search == HEADLINE]
    plan.out.mkdir(parents=True, exist_ok=True)
    csv, picture = plan.out / "selfplay.csv", plan.out / "selfplay.png"
    write_whole(csv, csv_of(points))
    write_whole(picture, _draw(points))
    return Result(
        level="selfplay",
        config={
            "quick": plan.quick, "players": 4, "cards": 5, "model_version": int(model.parent.name),
            "warm_up_s": pace.warm_up_s, "window_s": pace.window_s, "pure_load_s": pace.pure_load_s,
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
        tables=[_table(points)],
        files=[csv, picture],
        notes=[
            f"rounds/min = 60 x evaluations/s in windows of {pace.window_s:g} s / evaluations per round, the latter "
            f"from {pace.whole_rounds} whole rounds per search"
        ],
    )  # fmt: skip


def _pool(search: SearchConfig, *, rounds: int, games: int, groups: int = 1) -> SelfPlayPool:
    return SelfPlayPool(range(rounds), seed=0, deal=DealConfig(), search=search, n_games=games, n_groups=groups)


def _evaluations_per_round(url: str, pace: Pace) -> dict[SearchConfig, float]:
    """Play whole rounds in this process, all searches at once so that their small batches share executions."""

    def play_all(search: SearchConfig) -> float:
        pool = _pool(search, rounds=pace.whole_rounds, games=pace.whole_rounds)
        with TritonEvaluator(url) as evaluator:
            play(pool, evaluator, stop=threading.Event(), on_batch=lambda: None, on_version=lambda version: None)
        return pool.stats["evaluations"] / pool.stats["rounds"]

    searches = list({case.search for case in pace.cases})
    with ThreadPoolExecutor() as threads:
        return dict(zip(searches, threads.map(play_all, searches), strict=True))


def _beside_pure_load(triton: EmbeddedTriton, statistics: ModelStatistics, pace: Pace) -> list[tuple[Work, Work]]:
    """Measure windows of play by one worker in this process, each followed by one of pure load.

    `play` is interrupted after a batch; the answers to its requests in flight wait meanwhile.
    """
    pairs: list[tuple[Work, Work]] = []
    positions = search_positions(0)
    stop = threading.Event()
    cpu_seconds = partial(served.own_cpu, triton)
    watch = _Watch(statistics, cpu_seconds)
    is_warm, warm_up_s = False, pace.warm_up_s
    size = choose_size(1, "auto", "auto", network_is_here=True)
    pool = _pool(HEADLINE, rounds=ENDLESS, games=size.games, groups=size.groups)
    with TritonEvaluator(triton.url) as playing, TritonEvaluator(triton.url) as loading:

        def on_batch() -> None:
            nonlocal is_warm, warm_up_s
            if time.monotonic() - watch.began < (pace.window_s if is_warm else warm_up_s):
                return
            if is_warm:
                window = watch.end()
                time.sleep(IN_FLIGHT_S)
                batch = round(window.mean_execution_rows)
                pure = served.closed_loop(
                    loading, positions, batch=batch, seconds=pace.pure_load_s, cpu_seconds=cpu_seconds
                )
                pairs.append((window, pure))
                if len(pairs) == MIN_REPEATS:
                    stop.set()
                warm_up_s = IN_FLIGHT_S
            is_warm = not is_warm
            watch.begin()

        play(pool, playing, stop=stop, on_batch=on_batch, on_version=lambda version: None)
    return pairs


def _play(
    triton: EmbeddedTriton, statistics: ModelStatistics, case: FleetCase, pace: Pace, out: Path
) -> tuple[list[Work], float]:
    """Return windows of a fleet, and the resident megabytes of its largest worker."""
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

        def cpu_seconds() -> NDArray[np.float64]:
            times, cpu = [process.cpu_times() for process in processes], triton.cpu_seconds()
            return np.array([sum(spent.user + spent.system for spent in times), cpu.server_s, cpu.backend_s])

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


def _point(case: FleetCase, windows: list[Work], worker_mb: float, evaluations_per_round: float) -> dict[str, Any]:
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


def _draw(points: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw rounds/min over workers, a line per search."""
    figure, (axes,) = new_figure("self-play processes", "rounds/min", height=6)
    figure.suptitle("Self-play, 4 players, 5 cards")
    for search in sorted({_search(point) for point in points}):
        line = sorted((point["workers"], point["rounds_per_min"]) for point in points if _search(point) == search)
        axes.plot(*zip(*line, strict=True), "o-", label="{} x {}".format(*search))
    workers = sorted({point["workers"] for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(workers, list(map(str, workers)))
    axes.set_yscale("log")
    axes.legend()
    return png(figure)


def _table(points: Sequence[Mapping[str, Any]]) -> Table:
    table = new_table(
        "self-play, 4 players, 5 cards; CPU in microseconds per evaluation", "search", "workers x games", "rounds/min",
        "evaluations/s", "rows/execution", "client", "server", "backend", "MB per worker",
    )  # fmt: skip
    for point in sorted(points, key=lambda point: (_search(point), point["workers"])):
        table.add_row(
            "{} x {}".format(*_search(point)),
            f"{point['workers']} x {point['games_per_worker']}",
            f"{point['rounds_per_min']:,.0f}",
            f"{point['evaluations_per_s']:,.0f}",
            f"{point['mean_execution_rows']:.0f}",
            *(f"{point[f'{part}_us_per_evaluation']:.2f}" for part in served.PARTS),
            f"{point['client_mb_per_worker']:.0f}",
        )
    return table


def _search(point: Mapping[str, Any]) -> tuple[int, int]:
    return point["determinizations"], point["simulations"]
