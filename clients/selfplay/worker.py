# SPDX-License-Identifier: Apache-2.0
"""Self-play worker process: a pool of rounds, an evaluator, shards on disk.

`play` is the loop. As a program (`python -m clients.starter clients.selfplay.worker`) the process reads its
`WorkerConfig` as one line of JSON from standard input, reports in lines of JSON on standard output, and stops when its
input closes, so it never outlives its fleet by more than two seconds.

```
in   {config}                     then "go", and "stop" or end of input
out  {"event": "ready"}           connected, model checked
     {"event": "tick", ...}       counts so far, about once a second, even without responses from the server
     {"event": "version", ...}    the model version has changed
     {"event": "notice", "text"}  message for users (server unavailable, disk full)
     {"event": "done", ...}       final counts, every finished round on disk
     {"event": "error", "text"}   the worker fails; the exit status is 1
```
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clients.connect import EvaluatorConfig, connect
from clients.errors import AnswerPending
from clients.evaluator import Evaluator
from clients.lock import worker_in
from clients.selfplay.records import NoRoom, split_for_shards, write_shard
from clients.selfplay.shares import Share
from clients.starter import leave
from clients.triton.counts import RequestCounts
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.errors import BlobError
from mcts_ext.pool import SelfPlayPool
from mcts_ext.records import Records

TICK_S = 1.0
ROOM_CHECK_S = 1.0
ROOM_TIMEOUT_S = 3600.0
"""How long a worker waits for free disk space before it gives up."""
STOP_CHECK_S = 0.5
"""How often a worker that waits for the server checks whether it should stop."""


@dataclass(frozen=True)
class WorkerConfig:
    """Configuration of one worker: its share of the run's rounds, or of the games that hold them (shares.py)."""

    index: int
    workers: int
    rounds: int
    seed: int
    out: Path
    evaluator: EvaluatorConfig
    deal: DealConfig = field(default_factory=DealConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    games: int = 256
    groups: int = 2
    shard_seconds: float = 10.0

    def to_json(self) -> str:
        """Serialize to one line, for `from_json`."""
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def from_json(line: str) -> "WorkerConfig":
        """Parse a line of JSON."""
        fields: dict[str, Any] = json.loads(line)
        deal = fields.pop("deal")
        return WorkerConfig(
            deal=DealConfig(tuple(deal["players"]), tuple(deal["cards"]), deal["unit"]),
            search=SearchConfig(**fields.pop("search")),
            evaluator=EvaluatorConfig(**fields.pop("evaluator")),
            out=Path(fields.pop("out")),
            **fields,
        )


class ShardWriter:
    """Writes the finished rounds to a shard every few seconds; waits while the disk is full.

    Args:
        stop: ends the wait, and with it the run.
        on_event: called with one line when the wait begins and when it ends.
    """

    def __init__(self, config: WorkerConfig, *, stop: threading.Event, on_event: Callable[[str], None]) -> None:
        self._stop = stop
        self._on_event = on_event
        self._folder = config.out / "shards"
        self._seconds = config.shard_seconds
        self._provenance = {
            "seed": config.seed,
            "deal": asdict(config.deal),
            "search": asdict(config.search),
            "evaluator": config.evaluator.kind,
        }
        self._prefix = f"w{config.index:03d}-{time.time_ns():x}"
        self._last = time.monotonic()
        self.n_written = 0
        self.n_records = 0

    def flush(self, pool: SelfPlayPool, *, force: bool = False) -> None:
        """Write the pool's finished rounds if a shard is due."""
        if not force and time.monotonic() - self._last < self._seconds:
            return
        self._last = time.monotonic()
        records = pool.take_records()
        for part in split_for_shards(records) if len(records) else ():
            path = self._folder / f"{self._prefix}-{self.n_written:05d}.parquet"
            self._write(path, part)
            self.n_written += 1
            self.n_records += len(part)

    def _write(self, path: Path, records: Records) -> None:
        began, is_told = time.monotonic(), False
        while True:
            try:
                write_shard(path, records, provenance=self._provenance)
            except NoRoom as error:
                if self._stop.is_set() or time.monotonic() - began > ROOM_TIMEOUT_S:
                    self._stop.set()  # the final flush must not wait again
                    raise
                if not is_told:
                    self._on_event(f"{error}; waiting for free space")
                is_told = True
                self._stop.wait(ROOM_CHECK_S)
            else:
                if is_told:
                    self._on_event(f"the disk has free space again after {time.monotonic() - began:.0f} s; resuming")
                return


def play(
    pool: SelfPlayPool,
    evaluator: Evaluator,
    *,
    stop: threading.Event,
    on_batch: Callable[[], None],
    on_version: Callable[[int], None],
) -> None:
    """Play the pool's rounds until all are done or `stop` is set; rounds in progress are then discarded.

    One group is searched while the batches of all others are at the evaluator. `on_batch` is called after each
    evaluation, and every `STOP_CHECK_S` without one.
    """
    n_waiting = sum(_submit(pool, evaluator, group) for group in range(pool.n_groups))
    version: int | None = None
    while n_waiting and not stop.is_set():
        try:
            group, answer = evaluator.wait(STOP_CHECK_S)
        except AnswerPending:
            on_batch()
            continue
        if answer.model_version != version:
            version = answer.model_version
            on_version(version)
        pool.apply(group, answer.logits, answer.values, model_version=answer.model_version)
        n_waiting += _submit(pool, evaluator, group) - 1
        on_batch()


def _submit(pool: SelfPlayPool, evaluator: Evaluator, group: int) -> int:
    """Search a group and submit its batch; return the number of batches submitted, 0 or 1."""
    if pool.collect(group) == 0:
        return 0
    evaluator.submit(pool.observations(group), tag=group)
    return 1


def run(config: WorkerConfig, *, go: threading.Event, stop: threading.Event, report: Callable[..., None]) -> None:
    """Connect, report ready, wait for `go`, play, and write every finished round to disk."""
    requests = RequestCounts()
    with (
        connect(config.evaluator, on_event=lambda text: report("notice", text=text), counts=requests) as evaluator,
        worker_in(config.out),  # held from reading the existing shards to writing the last one
    ):
        share = Share.left(
            config.out / "shards",
            config.deal,
            seed=config.seed,
            rounds=config.rounds,
            index=config.index,
            workers=config.workers,
        )
        pool = SelfPlayPool(
            share.rounds,
            totals=share.totals,
            seed=config.seed,
            deal=config.deal,
            search=config.search,
            n_games=config.games,
            n_groups=config.groups,
        )
        shards = ShardWriter(config, stop=stop, on_event=lambda text: report("notice", text=text))
        report("ready")
        go.wait()
        cpu_before = time.process_time()
        last_tick = time.monotonic()

        def tick(event: str) -> None:
            cpu_s = time.process_time() - cpu_before
            report(event, **pool.stats, records=shards.n_records, client_cpu_s=cpu_s, **requests)

        def on_batch() -> None:
            nonlocal last_tick
            shards.flush(pool)
            if time.monotonic() - last_tick >= TICK_S:
                last_tick = time.monotonic()
                tick("tick")

        def on_version(version: int) -> None:
            report("version", version=version)

        try:
            if not stop.is_set():  # the fleet may be gone, and another one may own the folder
                play(pool, evaluator, stop=stop, on_batch=on_batch, on_version=on_version)
        finally:
            shards.flush(pool, force=True)
        tick("done")


def main() -> int:
    """Run the process: configuration and commands on standard input, reports on standard output."""
    config = WorkerConfig.from_json(sys.stdin.readline())
    go, stop = threading.Event(), threading.Event()
    lock = threading.Lock()

    def report(event: str, **values: Any) -> None:
        with lock:
            print(json.dumps({"event": event, **values}), flush=True)

    def listen() -> None:
        for line in sys.stdin:
            if line.strip() == "go":
                go.set()
            elif line.strip() == "stop":
                break
        if not go.is_set():  # still connecting or reading shards: there is nothing to write
            leave()
        stop.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        run(config, go=go, stop=stop, report=report)
    except BlobError as error:
        report("error", text=str(error))
        return 1
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
