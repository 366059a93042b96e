# SPDX-License-Identifier: Apache-2.0
"""`blobzero selfplay`: workers play rounds with a served network and record them."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from blobzero.monitor.display import Display, draw
from blobzero.monitor.metrics import FleetMetrics, serve_metrics
from clients.connect import EvaluatorConfig, Kind
from clients.errors import EvaluatorError
from clients.files import write_json
from clients.limits import allow_open_files
from clients.lock import sole_writer
from clients.selfplay.fleet import Fleet, FleetError
from clients.selfplay.folder import RunFolder, RunFolderError, fresh_folder
from clients.selfplay.sizing import Auto, Size, choose_size
from clients.selfplay.telemetry import History, Sample
from clients.selfplay.worker import WorkerConfig
from clients.triton.statistics import ModelCounts, ModelStatistics
from mcts_ext.config import DealConfig, SearchConfig, Unit
from mcts_ext.contract import MODEL_NAME
from mcts_ext.deals import games_for
from mcts_ext.errors import InvalidConfig
from mcts_ext.memory import check_memory
from mcts_ext.pool import memory_of_pool
from ui.console import decoration
from ui.stopping import stop_signals


@dataclass(frozen=True, kw_only=True)
class SelfPlayConfig:
    """Play rounds with a served network; write records, a summary and a chart to a folder."""

    rounds: int = 1000
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
    workers: int | Auto = "auto"
    """Number of worker processes; `auto`: one per core, or one per eight cores if the network runs on them too."""
    games: int | Auto = "auto"
    """Concurrent rounds per worker; `auto`: enough to fill batches."""
    groups: int | Auto = "auto"
    """Groups of rounds per worker that alternate between search and server; `auto`: four, or fewer on shared cores."""
    shard_seconds: float = 10.0
    """Seconds between shards; a killed worker plays its unwritten rounds again."""
    seed: int | Auto = "auto"
    """Seed of the run; the same seed and network give the same rounds with any number of workers; `auto` draws one and
    stores it in the folder."""
    out: Path = field(default_factory=partial(fresh_folder, "selfplay"))
    """Folder for records, logs and summary; an existing run is continued."""
    evaluator: Kind = "triton"
    """Evaluator: a Triton server, the model in each worker's process, or a stand-in without a network."""
    url: str | None = None
    """HOST:PORT of a Triton server's gRPC endpoint; by default one is started."""
    repository: Path = Path("model_repo")
    """Model repository of the server started here."""
    model: str = MODEL_NAME
    """Name of the model."""
    model_version: int | None = None
    """Play with this version, which must be served; by default always with the latest."""
    server_timeout: float = 60.0
    """Seconds to retry while the server is unavailable."""
    metrics: str | None = None
    """Serve Prometheus metrics at ADDRESS:PORT, or at PORT on 127.0.0.1."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
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
        self.deal()
        for name, low, high in (
            ("rounds", 1, 10**9),
            ("workers", 1, 1024),
            ("games", 1, 100_000),
            ("groups", 1, 64),
            ("server_timeout", 0, 86_400),
            ("shard_seconds", 0, 86_400),
        ):
            value = getattr(self, name)
            if value != "auto" and not low <= value <= high:
                raise InvalidConfig(f"expected --{name.replace('_', '-')} in {low}..{high}, got {value}")
        size = self.size()
        n_bytes = memory_of_pool(self.deal(), self.search, n_games=size.games, n_groups=size.groups)
        check_memory(n_bytes, of="self-play", processes=size.workers)
        if self.minutes is not None and self.minutes <= 0:
            raise InvalidConfig(f"expected --minutes above 0, got {self.minutes}")
        if self.url is not None and self.evaluator != "triton":
            raise InvalidConfig(f"expected --url only with --evaluator triton, got --evaluator {self.evaluator}")
        if self.model_version is not None and self.evaluator != "triton":
            raise InvalidConfig(
                f"expected --model-version only with --evaluator triton, got --evaluator {self.evaluator}"
            )
        allow_open_files(size.workers, flag="--workers")
        if self.evaluator == "local":
            from clients.local import latest_model_file

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
    display = Display(to_stderr=config.json)
    display.say(f"seed {config.seed}, records in {config.out}")
    try:
        with _server(config, folder, display.say) as server, stop_signals() as was_stopped:
            history, extra = _play(config, folder, server, display, was_stopped, metrics)
            if server.cpu_seconds is not None:
                extra["server_cpu_s"] = round(sum(server.cpu_seconds()) - server.cpu_at_start, 3)
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
        display.say(why)
    with decoration("picture", display.say):
        draw(history, folder.picture, title=folder.title(config.size().workers, config.search))
    display.summary(summary, folder, is_part=is_part)
    if config.json:
        print(json.dumps(summary))
    return 130 if was_stopped() else 0


@dataclass
class _Server:
    """Address of the evaluator, and its statistics."""

    url: str = ""
    model_path: str = ""
    cpu_seconds: Callable[[], tuple[float, float]] | None = None
    cpu_at_start: float = 0.0
    statistics: ModelStatistics | None = None
    counts: ModelCounts = field(default_factory=ModelCounts)
    counts_at_start: ModelCounts = field(default_factory=ModelCounts)

    def start(self) -> None:
        """Start counting."""
        if self.cpu_seconds is not None:
            self.cpu_at_start = sum(self.cpu_seconds())
        self.read()
        self.counts_at_start = self.counts

    def read(self, *, timeout_s: float = 2.0) -> ModelCounts:
        """Return the server's counts since `start`, or the last known ones if it is unavailable."""
        if self.statistics is not None:
            with contextlib.suppress(EvaluatorError):
                self.counts = self.statistics.read(timeout_s=timeout_s)
        return self.counts - self.counts_at_start


@contextlib.contextmanager
def _server(config: SelfPlayConfig, folder: RunFolder, say: Callable[[str], None]) -> Iterator[_Server]:
    """Yield the evaluator of the workers, starting a server if necessary."""
    if config.evaluator == "local":
        from clients.local import latest_model_file

        yield _Server(model_path=str(latest_model_file(config.repository, config.model)))
    elif config.evaluator != "triton":
        yield _Server()
    elif config.url is not None:
        with ModelStatistics(config.url, model=config.model) as statistics:
            yield _Server(url=config.url, statistics=statistics)
    else:
        from serving.embedded import own_server  # the server is an optional dependency

        own = own_server(config.repository, say=say, model=config.model, log_file=folder.logs / "triton.log")
        with own as triton, ModelStatistics(triton.url, model=config.model) as statistics:
            say(f"Triton answers at {triton.url}, metrics at {triton.metrics_url}")

            def cpu_seconds() -> tuple[float, float]:
                cpu = triton.cpu_seconds()
                return cpu.server_s, cpu.backend_s

            yield _Server(url=triton.url, cpu_seconds=cpu_seconds, statistics=statistics)


def _play(
    config: SelfPlayConfig,
    folder: RunFolder,
    server: _Server,
    display: Display,
    was_stopped: Callable[[], bool],
    metrics: FleetMetrics,
) -> tuple[History, dict[str, Any]]:
    """Run the fleet to its end; return its history and further entries of the summary."""
    evaluator = EvaluatorConfig(
        kind=config.evaluator,
        url=server.url,
        model=config.model,
        model_version="" if config.model_version is None else str(config.model_version),
        model_path=server.model_path,
        server_timeout_s=config.server_timeout,
    )
    size = config.size()
    assert config.seed != "auto"
    workers = [
        WorkerConfig(
            index=index,
            workers=size.workers,
            rounds=config.rounds,
            seed=config.seed,
            out=config.out,
            evaluator=evaluator,
            deal=config.deal(),
            search=config.search,
            games=size.games,
            groups=size.groups,
            shard_seconds=config.shard_seconds,
        )
        for index in range(size.workers)
    ]
    history = History()
    rounds = config.rounds_in_all()
    with Fleet(workers, logs=folder.logs, on_event=display.say) as fleet, display.live(rounds, config.minutes):
        fleet.wait_ready(was_stopped)
        started_with = len(folder.finished_rounds(on_event=display.say))
        if started_with:
            display.say(f"{config.out} holds {started_with} rounds of this run already; continuing")
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
            display.update(history)
            if not is_stopping and (was_stopped() or time.monotonic() >= deadline):
                is_stopping = True
                display.say("stopping: workers write their finished rounds; press Ctrl-C again to end at once")
                fleet.stop()
        if fleet.fault is not None and not was_stopped():
            raise FleetError(fleet.fault)
        versions = sorted(fleet.model_versions)
        return history, {
            "model_version": versions[-1] if versions else None,
            "model_versions": versions,
            "server_cpu_s": None,
            "restarts": fleet.n_restarts,
            "rounds_before": started_with,
            "workers": size.workers,
            "games_per_worker": size.games,
        }
