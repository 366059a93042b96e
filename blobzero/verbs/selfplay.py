# SPDX-License-Identifier: Apache-2.0
"""`blobzero selfplay`: workers play rounds with a served network and record them."""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from blobzero.arguments import Range
from blobzero.monitor.display import draw, rates, tell
from blobzero.monitor.metrics import FleetMetrics, serve_metrics
from blobzero.server import ServerFlags
from clients.connect import EvaluatorConfig, Kind
from clients.errors import EvaluatorError
from clients.files import write_json
from clients.limits import allow_open_files
from clients.local import latest_model_file
from clients.lock import sole_writer
from clients.selfplay.fleet import Fleet, FleetError
from clients.selfplay.folder import RunFolder, RunFolderError, fresh_folder
from clients.selfplay.sizing import Auto, Size, choose_size
from clients.selfplay.telemetry import History, Sample
from clients.selfplay.worker import WorkerConfig
from clients.triton.statistics import ModelCounts, ModelStatistics
from mcts_ext.config import DealConfig, SearchConfig, Unit
from mcts_ext.deals import games_for
from mcts_ext.errors import InvalidConfig
from mcts_ext.memory import check_memory
from mcts_ext.pool import memory_of_pool
from ui.console import decoration, plain_console
from ui.progress import ticker
from ui.stopping import INTERRUPTED, stop_signals

if TYPE_CHECKING:
    from serving.embedded import EmbeddedTriton


@dataclass(frozen=True, kw_only=True)
class SelfPlayConfig(ServerFlags):
    """Play rounds with a served network; write records, a summary and a chart to a folder."""

    rounds: Annotated[int, Range(1, 10**9)] = 1000
    """Total number of rounds (whole games may be a few more); rounds already in the folder are not played again."""
    minutes: float | None = None
    """Stop after this many minutes, if the rounds are not finished before."""
    players: tuple[int, ...] = (4,)
    """Number of players; drawn uniformly if several are given."""
    cards: tuple[int, ...] = (5,)
    """Number of cards per player, in the first round of a game; drawn uniformly if several are given."""
    unit: Unit = "round"
    """Independent rounds with random dealer and trump, or whole games, in which players see the totals."""
    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = field(default_factory=SearchConfig)
    workers: Annotated[int | Auto, Range(1, 1024)] = "auto"
    """Number of worker processes; `auto`: one per core, or one per eight cores if the network runs on them too."""
    games: Annotated[int | Auto, Range(1, 100_000)] = "auto"
    """Concurrent rounds per worker; `auto`: enough to fill batches."""
    groups: Annotated[int | Auto, Range(1, 64)] = "auto"
    """Groups of rounds per worker that alternate between search and server; `auto`: four, or fewer on shared cores."""
    shard_seconds: Annotated[float, Range(0, 86_400)] = 10.0
    """Seconds between shards; a killed worker plays its unwritten rounds again."""
    seed: int | Auto = "auto"
    """Seed of the run: with the same network it gives the same rounds, however many workers play; `auto` draws one."""
    out: Path = field(default_factory=partial(fresh_folder, "selfplay"))
    """Folder for records, logs and summary; an existing run is continued."""
    evaluator: Kind = "triton"
    """Evaluator: a Triton server, the model in each worker's process, or a stand-in without a network."""
    model_version: int | None = None
    """Play with this version, which must be served; by default always with the latest."""
    metrics: str | None = None
    """Serve Prometheus metrics at ADDRESS:PORT, or at PORT on 127.0.0.1."""
    json: bool = False
    """Print the summary as JSON on standard output, everything else on standard error."""

    def deal(self) -> DealConfig:
        return DealConfig(players=self.players, cards=self.cards, unit=self.unit)

    def rounds_in_all(self) -> int:
        """Return the final number of rounds in the folder, which may be larger with whole games; needs a fixed seed."""
        assert self.seed != "auto"
        return games_for(self.rounds, seed=self.seed, deal=self.deal())[1] if self.unit == "game" else self.rounds

    def size(self) -> Size:
        """Return the size of the fleet, with defaults for `auto`."""
        here = self.evaluator == "triton" and self.url is None
        return choose_size(self.workers, self.games, self.groups, network_is_here=here)

    def check(self) -> None:
        """Raise InvalidConfig if a setting is out of range, and other errors that can be detected in advance."""
        size = self.size()
        n_bytes = memory_of_pool(self.deal(), self.search, n_games=size.games, n_groups=size.groups)
        check_memory(n_bytes, of="self-play", processes=size.workers)
        if self.minutes is not None and self.minutes <= 0:
            raise InvalidConfig(f"expected --minutes above 0, got {self.minutes}")
        if self.search.even_root and not self.search.q_scale:
            raise InvalidConfig("expected --q-scale above 0 with --even-root, got 0: all visits would be equal")
        self.check_evaluator(self.evaluator, "url", "model_version")
        allow_open_files(size.workers, flag="--workers")
        if self.evaluator == "local":
            latest_model_file(self.repository, self.model)
        elif self.evaluator == "triton" and self.url is None:
            from serving.repository import check_repository

            check_repository(self.repository, model=self.model)


def selfplay(config: SelfPlayConfig, *, metrics: FleetMetrics | None = None) -> int:
    """Play, report, and return the exit status: 0, or 130 when interrupted.

    Args:
        metrics: metrics of the calling verb, which serves them.
    """
    config.check()
    with serve_metrics(config.metrics) as registry, sole_writer(config.out):
        return _run(config, metrics or FleetMetrics(registry), is_part=metrics is not None)


def _run(config: SelfPlayConfig, metrics: FleetMetrics, *, is_part: bool) -> int:
    folder = RunFolder(config.out)
    if config.seed == "auto":
        config = replace(config, seed=folder.seed())
    folder.open({"seed": config.seed, "deal": asdict(config.deal()), "search": asdict(config.search)})
    console = plain_console(stderr=config.json)
    console.print(f"seed {config.seed}, records in {config.out}")
    log = folder.logs / "triton.log"
    try:
        with contextlib.ExitStack() as stack:
            evaluator, triton = stack.enter_context(
                config.evaluator_config(
                    config.evaluator, console.print, model_version=config.model_version, log_file=log
                )
            )
            statistics = None
            if evaluator.url:
                statistics = stack.enter_context(ModelStatistics(evaluator.url, model=config.model))
            server = _ServerWork(statistics, triton)
            was_stopped = stack.enter_context(stop_signals())
            history, extra = _play(config, folder, evaluator, server, console, was_stopped, metrics)
    except BaseException:
        folder.withdraw()
        raise
    summary = history.summary(**extra, config=json.loads(json.dumps(asdict(config), default=str)))
    try:
        write_json(folder.summary, summary)
    except OSError as error:
        why = f"expected to write {folder.summary}, got {error.strerror}; free some space and repeat the command"
        if not was_stopped():
            raise RunFolderError(why) from error
        console.print(why)
    with decoration("picture", console.print):
        draw(history, folder.picture, title=folder.title(config.size().workers, config.search))
    tell(console, summary, folder, is_part=is_part)
    if config.json:
        print(json.dumps(summary))
    return INTERRUPTED if was_stopped() else 0


class _ServerWork:
    """What the server has done since `start`: its executions and, of a server started here, its CPU time."""

    def __init__(self, statistics: ModelStatistics | None, triton: "EmbeddedTriton | None") -> None:
        self._statistics = statistics
        self._triton = triton
        self._counts = self._counts_at_start = ModelCounts()
        self._cpu_at_start_s = 0.0

    def start(self) -> None:
        """Start counting."""
        self._cpu_at_start_s = self.cpu_s() or 0.0
        self.read()
        self._counts_at_start = self._counts

    def read(self, *, timeout_s: float = 2.0) -> ModelCounts:
        """Return the server's counts since `start`, or the last known ones if it is unavailable."""
        if self._statistics is not None:
            with contextlib.suppress(EvaluatorError):
                self._counts = self._statistics.read(timeout_s=timeout_s)
        return self._counts - self._counts_at_start

    def cpu_s(self) -> float | None:
        """Return the CPU time; None for a server that was not started here."""
        if self._triton is None:
            return None
        cpu = self._triton.cpu_seconds()
        return round(cpu.server_s + cpu.backend_s - self._cpu_at_start_s, 3)


def _play(
    config: SelfPlayConfig,
    folder: RunFolder,
    evaluator: EvaluatorConfig,
    server: _ServerWork,
    console: Console,
    was_stopped: Callable[[], bool],
    metrics: FleetMetrics,
) -> tuple[History, dict[str, Any]]:
    """Run the fleet to its end; return its history and further entries of the summary."""
    size, rounds, history = config.size(), config.rounds_in_all(), History()
    assert config.seed != "auto"
    workers = [
        WorkerConfig(
            index=index,
            rounds=config.rounds,
            seed=config.seed,
            out=config.out,
            evaluator=evaluator,
            deal=config.deal(),
            search=config.search,
            shard_seconds=config.shard_seconds,
            **asdict(size),
        )
        for index in range(size.workers)
    ]
    console.print(f"playing {rounds} rounds" + ("" if config.minutes is None else f", at most {config.minutes:g} min"))
    with (
        Fleet(workers, logs=folder.logs, on_event=console.print) as fleet,
        ticker(console, "rounds", total=rounds) as tick,
    ):
        fleet.wait_ready(was_stopped)
        started_with = len(folder.finished_rounds(on_event=console.print))
        if started_with:
            console.print(f"{config.out} holds {started_with} rounds of this run already; continuing")
        server.start()
        start = time.monotonic()
        deadline = start + 60 * config.minutes if config.minutes is not None else float("inf")
        fleet.go()
        is_stopping = False
        while not fleet.is_done:
            fleet.poll(1.0)
            done = server.read(timeout_s=0.5) if is_stopping else server.read()  # it may hang
            history.samples.append(Sample(time.monotonic() - start, **fleet.counts, server=done))
            metrics.update(fleet)
            tick(started_with + int(history.total.rounds), lambda: rates(history))
            if not is_stopping and (was_stopped() or time.monotonic() >= deadline):
                is_stopping = True
                console.print("stopping: workers write their finished rounds; press Ctrl-C again to end at once")
                fleet.stop()
        if fleet.fault is not None and not was_stopped():
            raise FleetError(fleet.fault)
        versions = sorted(fleet.model_versions)
        return history, {
            "model_version": versions[-1] if versions else None,
            "model_versions": versions,
            "server_cpu_s": server.cpu_s(),
            "restarts": fleet.n_restarts,
            "rounds_before": started_with,
            "workers": size.workers,
            "games_per_worker": size.games,
        }
