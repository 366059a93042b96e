# SPDX-License-Identifier: Apache-2.0
"""One measurement of a setting: the server takes its half by the control API, the clients take theirs, and play."""

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
from mcts_ext.config import DealConfig
from mcts_ext.contract import OBSERVATION_BYTES
from mcts_ext.errors import BlobError
from perf.load import Generator, Load, LoadError, Patience, Slo, Target, Traffic
from perf.tune.space import Setting, apply, as_json

PLAYERS, CARDS = 4, 5
EVALUATIONS_PER_ROUND: Final = 1136
"""Of such a round, as `blobzero selfplay` searches with an untrained network. Evaluations come steadily; rounds come in
bursts, and decisions too: the pool's rounds begin together, and the last tricks' decisions cost the network nothing."""
ENDLESS: Final = 1_000_000
WARMUP_S: Final = 3.0
LOAD_WARMUP_S: Final = 0.5
SERVER_TIMEOUT_S: Final = 3.0
"""How long a player waits for a server that does not answer, before the setting is given up."""
ONE_ROW: Final = np.ones((1, OBSERVATION_BYTES), np.uint8)


class Refused(BlobError):
    """The server did not take a configuration, or did not live with it."""


@dataclass(frozen=True)
class Measured:
    """What came of one setting once."""

    rate: float
    """Rounds a minute, or rows a second."""
    latency_ms: float | None = None
    """The promised quantile, where there is a promise."""


Measure = Callable[[Setting], Measured]
"""Measures a setting once; raises `Refused`, with the reason."""


@dataclass(frozen=True)
class Bench:
    """A server, and clients for one objective."""

    target: Target
    config: Any
    """The server's, a message of Triton's `model_config.proto`."""
    _: KW_ONLY
    objective: str
    slo: Slo | None
    seconds: float
    seed: int
    revive: Callable[[], None]
    """Brings a server back that did not survive a setting."""

    def __call__(self, setting: Setting) -> Measured:
        """See `Measure`."""
        try:
            with ModelServer(self.target.url, key_file=self.target.key_file) as server:
                self._load(server, setting)
                measured = self._rows(setting) if self.objective == "rows" else self._rounds(setting)
                server.ask(ONE_ROW, version=None)  # one that died on the way was measured too slow
            return measured
        except (EvaluatorError, LoadError, FleetError, Refused) as error:
            self.revive()
            raise Refused(str(error)) from error

    def _load(self, server: ModelServer, setting: Setting) -> None:
        wanted = apply(self.config, setting)
        server.load(config=as_json(wanted))
        taken = server.config()
        if _told(taken, wanted) != _told(wanted, wanted):
            raise Refused(f"expected the server to take {_told(wanted, wanted)}, got {_told(taken, wanted)}")

    def _rows(self, setting: Setting) -> Measured:
        in_flight = int(setting["in_flight"])
        processes = max(1, min(in_flight, len(os.sched_getaffinity(0)) // 2))
        traffic = Traffic(rows=int(setting["rows"]), processes=processes, seed=self.seed)
        with Generator(self.target, traffic) as generator:
            patience = Patience(ramp_s=0.2, warmup_s=LOAD_WARMUP_S, duration_s=self.seconds)
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
                deal=DealConfig(players=(PLAYERS,), cards=(CARDS,)),
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


def _told(config: Any, wanted: Any) -> tuple[int, list[int], int]:
    """What of a setting a server tells; where no sizes are preferred, it says that it prefers the largest."""
    batching = config.dynamic_batching
    preferred = list(batching.preferred_batch_size) if wanted.dynamic_batching.preferred_batch_size else []
    return batching.max_queue_delay_microseconds, preferred, sum(group.count for group in config.instance_group)


def _poll(fleet: Fleet, seconds: float) -> None:
    """Listen for so long, and then until a worker has just reported: their reports come once a second."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        fleet.poll(left)
    before = fleet.counts["evaluations"]
    last = deadline + 2.0
    while fleet.counts["evaluations"] == before and time.monotonic() < last:
        fleet.poll(0.02)


def penalized(measured: Measured, limit_ms: float | None) -> float:
    """The logarithm of a rate, less what a broken promise costs: twice the logarithm of how far it was missed."""
    score = math.log(measured.rate)
    if limit_ms is not None and measured.latency_ms is not None and measured.latency_ms > limit_ms:
        score -= 2 * math.log(measured.latency_ms / limit_ms)
    return score
