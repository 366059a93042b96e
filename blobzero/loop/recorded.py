# SPDX-License-Identifier: Apache-2.0
"""Rounds recorded by other processes: counting them, and waiting until there are enough."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clients.errors import EvaluatorError
from clients.files import read_small
from clients.selfplay.records import ShardError, ShardGone, ShardUnavailable, read_shard
from clients.selfplay.telemetry import History, Sample
from clients.triton.statistics import ModelCounts, ModelStatistics
from mcts_ext.contract import MODEL_NAME
from training.shards import find_shards

LEDGER_BYTES = 1 << 30
"""Size limit of the ledger: lines for ten million shards."""
POLL_S = 1.0
SAY_S = 60.0


class RecordedRounds:
    """Counts the rounds of all shards ever seen under a folder, reading each shard once.

    Args:
        records: folder with runs.
        ledger: file with a line per counted shard, so that the shard may be removed later.
    """

    def __init__(self, records: Path, ledger: Path) -> None:
        self._records = records
        self._ledger = ledger
        self._rounds: dict[str, int] = {}
        for line in read_small(ledger, most_bytes=LEDGER_BYTES).splitlines() if ledger.exists() else ():
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                name, rounds = json.loads(line)  # a line may be truncated if the process was killed
                self._rounds[str(name)] = int(rounds)
        self._known = {os.path.realpath(records / name) for name in self._rounds}
        self.troubles: dict[str, str] = {}
        """Reason why each uncounted shard is not counted, by path."""

    def count(self) -> int:
        """Count the rounds so far; invalid shards count as 0, unavailable ones are read at the next count.

        Raises:
            OSError: if the ledger cannot be written.
        """
        new: list[tuple[str, int]] = []
        for path in map(str, find_shards([self._records], on_error=self._note_folder)):
            if path in self._known:
                continue
            try:
                rounds = read_shard(Path(path), ["round"]).columns["round"]
                new.append((os.path.relpath(path, os.path.realpath(self._records)), len(np.unique(rounds))))
            except (ShardGone, ShardUnavailable) as error:
                if isinstance(error, ShardUnavailable):
                    self.troubles[path] = str(error)
                continue
            except ShardError as error:
                self.troubles[path] = str(error)
            else:
                self.troubles.pop(path, None)
            self._known.add(path)
        if new:
            with self._ledger.open("a") as file:
                # The newline comes first because the last line may be truncated.
                file.write("".join(f"\n{json.dumps(line)}" for line in new))
                file.flush()
                os.fsync(file.fileno())
            self._rounds |= dict(new)
        return sum(self._rounds.values())

    def _note_folder(self, error: OSError) -> None:
        self.troubles[str(error.filename)] = f"expected to list {error.filename}, got: {error.strerror}"


def wait_for_rounds(
    recorded: RecordedRounds, wanted: int, *, before: int, url: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Wait until `wanted` rounds are recorded, and summarize the time of waiting.

    Args:
        recorded: counter of recorded rounds.
        wanted: total number of rounds.
        before: rounds of earlier generations, included in `wanted`.
        url: server used by the players, which counts their evaluations.
        say: called with the progress once a minute.

    Returns:
        A summary like that of a self-play run; `rounds` were recorded while waiting, `rounds_before` earlier.
    """
    history, began = History(), time.monotonic()
    at_start, said = recorded.count(), began
    with ModelStatistics(url, model=MODEL_NAME) as statistics:
        at_first = None
        while True:
            looked = time.monotonic()
            n_rounds, now = recorded.count(), time.monotonic()
            served = ModelCounts()
            with contextlib.suppress(EvaluatorError):  # an unavailable server is reported elsewhere
                counts = statistics.read()
                at_first = at_first or counts
                served = counts - at_first
            rows = served.execution_rows
            sample = Sample(now - began, rounds=n_rounds - at_start, leaves=rows, evaluations=rows, server=served)
            history.samples.append(sample)
            if n_rounds >= wanted:
                return history.summary(rounds_before=at_start - before)
            if now - said >= SAY_S:
                said = now
                rate = history.recent(SAY_S).rounds_per_min
                say(f"{n_rounds:,} of {wanted:,} rounds recorded, {rate:,.0f} per minute")
                if recorded.troubles:
                    first = next(iter(recorded.troubles.values()))
                    say(f"not counted: {len(recorded.troubles)} (the first: {first})")
            time.sleep(max(POLL_S, 10 * (now - looked)))  # listing 100,000 shards takes a while
