# SPDX-License-Identifier: Apache-2.0
"""Small recorded runs for tests of training, made by the worker itself, in this process."""

import threading
from pathlib import Path

from clients.connect import EvaluatorConfig, Kind
from clients.selfplay.worker import WorkerConfig, run
from mcts_ext.config import DealConfig, SearchConfig, Unit

SMALL_SEARCH = SearchConfig(determinizations=2, simulations=8)


def record(
    out: Path,
    *,
    rounds: int,
    players: tuple[int, ...] = (4,),
    cards: tuple[int, ...] = (5,),
    unit: Unit = "round",
    kind: Kind = "hash",
    search: SearchConfig = SMALL_SEARCH,
    shard_seconds: float = 0.0,
    seed: int = 0,
) -> Path:
    """Play `rounds` rounds into `out`; `out`. With 0 `shard_seconds`, many small shards."""
    (out / "shards").mkdir(parents=True, exist_ok=True)
    go = threading.Event()
    go.set()
    config = WorkerConfig(
        index=0,
        workers=1,
        rounds=rounds,
        seed=seed,
        out=out,
        evaluator=EvaluatorConfig(kind=kind),
        deal=DealConfig(players=players, cards=cards, unit=unit),
        search=search,
        shard_seconds=shard_seconds,
    )
    run(config, go=go, stop=threading.Event(), report=lambda *_, **__: None)
    return out
