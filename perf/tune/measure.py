# SPDX-License-Identifier: Apache-2.0
"""One measurement of a setting: configure the server through the control API, then run the clients."""

import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from clients.connect import EvaluatorConfig
from clients.errors import EvaluatorError
from clients.selfplay.fleet import Fleet, FleetError
from clients.selfplay.worker import WorkerConfig
from export.publishing.server import ModelServer
from mcts_ext.contract import OBSERVATION_BYTES
from mcts_ext.errors import BlobError
from perf.load import Generator, Load, LoadError, Patience, Slo, Target, Traffic
from perf.tune.space import Setting, apply, as_json

EVALUATIONS_PER_ROUND: Final = 1136
"""For a default round (4 players, 5 cards) and search, with an untrained network. Evaluations come steadily; rounds and
decisions come in bursts: a pool's rounds begin together, and decisions in the last tricks need no evaluation."""
ENDLESS: Final = 1_000_000
WARMUP_S: Final = 3.0
LOAD_WARMUP_S: Final = 0.5
SERVER_TIMEOUT_S: Final = 3.0
"""How long a worker retries before the setting is given up."""
ONE_ROW: Final = np.ones((1, OBSERVATION_BYTES), np.uint8)


class Refused(BlobError):
    """The server rejected a setting or failed with it."""


@dataclass(frozen=True)
class Measured:
    """Result of one measurement."""

    rate: float
    """Rounds/min or rows/s."""
    latency_ms: float | None = None
    """The limited quantile; None without a limit."""


Measure = Callable[[Setting], Measured]
"""Measures a setting once; raises `Refused` with the reason."""


@dataclass(frozen=True)
class Bench:
    """A server, and clients for one objective."""

    target: Target
    config: Any
    """The server's configuration, a message of Triton's `model_config.proto`."""
    _: KW_ONLY
    objective: str
    slo: Slo | None
    seconds: float
    seed: int
    revive: Callable[[], None]
    """Restores a server that failed with a setting."""

    def __call__(self, setting: Setting) -> Measured:
        """Measure a setting (`Measure`)."""
        try:
            with ModelServer(self.target.url, key_file=self.target.key_file) as server:
                self._load(server, setting)
                measured = self._rows(setting) if self.objective == "rows" else self._rounds(setting)
                server.ask(ONE_ROW, version=None)  # fails if the server died on the way
            return measured
        except (EvaluatorError, LoadError, FleetError, Refused) as error:
            self.revive()
            raise Refused(str(error)) from error

    def _load(self, server: ModelServer, setting: Setting) -> None:
        wanted = apply(self.config, setting)
        server.load(config=as_json(wanted))
        taken = server.config()
        if _reported(taken, wanted) != _reported(wanted, wanted):
            raise Refused(f"expected the server to use {_reported(wanted, wanted)}, got {_reported(taken, wanted)}")

    def _rows(self, setting: Setting) -> Measured:
        in_flight = int(setting["in_flight"])
        processes = max(1, min(in_flight, len(os.sched_getaffinity(0)) // 2))
        traffic = Traffic(rows=int(setting["rows"]), processes=processes, seed=self.seed)
        with Generator(self.target, traffic) as generator:
            patience = Patience(ramp=0.2, warmup=LOAD_WARMUP_S, duration=self.seconds)
            point = generator.measure(Load(concurrency=in_flight), patience)
        if point.errors:
            raise Refused(f"{sum(point.errors.values())} requests failed: {point.reasons}")
        return Measured(point.rows_per_s, None if self.slo is None else point.quantile_ms(self.slo.share))

    def _rounds(self, setting: Setting) -> Measured:
        n_workers, groups = int(setting["workers"]), int(setting["groups"])
        with tempfile.TemporaryDirectory(prefix="blobzero-tune-") as name:
            folder = Path(name)
            (folder / "shards").mkdir()
            one = WorkerConfig(
                index=0,
                workers=n_workers,
                rounds=ENDLESS,
                seed=self.seed,
                out=folder,
                evaluator=EvaluatorConfig(url=self.target.url, server_timeout_s=SERVER_TIMEOUT_S),
                games=int(setting["games"]) * groups,
                groups=groups,
            )
            with Fleet([replace(one, index=index) for index in range(n_workers)], logs=folder / "logs") as fleet:
                fleet.wait_ready()
                fleet.go()
                _poll(fleet, WARMUP_S)
                before, began = fleet.counts["evaluations"], time.monotonic()
                _poll(fleet, self.seconds)
                evaluations, seconds = fleet.counts["evaluations"] - before, time.monotonic() - began
        if not evaluations:
            raise Refused(f"nothing was evaluated within {self.seconds:g} s")
        return Measured(60 * evaluations / EVALUATIONS_PER_ROUND / seconds)


def _reported(config: Any, wanted: Any) -> tuple[int, list[int], int]:
    """Return the part of a setting that a server reports; without preferred sizes, it reports the largest as one."""
    batching = config.dynamic_batching
    preferred = list(batching.preferred_batch_size) if wanted.dynamic_batching.preferred_batch_size else []
    return batching.max_queue_delay_microseconds, preferred, sum(group.count for group in config.instance_group)


def _poll(fleet: Fleet, seconds: float) -> None:
    """Process reports for `seconds`, and then until one has just arrived: workers report once a second."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        fleet.poll(left)
    before = fleet.counts["evaluations"]
    last = deadline + 2.0
    while fleet.counts["evaluations"] == before and time.monotonic() < last:
        fleet.poll(0.02)


def excess(latency_ms: float | None, limit_ms: float | None) -> float:
    """Return latency / limit, or 1 if the limit is met or there is none."""
    return 1.0 if latency_ms is None or limit_ms is None else max(1.0, latency_ms / limit_ms)


def penalized(measured: Measured, limit_ms: float | None) -> float:
    """Return the logarithm of the rate, minus twice that of the excess over the limit."""
    return math.log(measured.rate) - 2 * math.log(excess(measured.latency_ms, limit_ms))
