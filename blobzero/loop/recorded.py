# SPDX-License-Identifier: Apache-2.0
"""Self-play that others do: how many rounds their shards have held, and waiting until they have held enough."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clients.errors import EvaluatorError
from clients.files import read_small
from clients.selfplay.records import ShardError, ShardGone, ShardUnavailable, rounds_of
from clients.selfplay.summary import summarize
from clients.selfplay.telemetry import History
from clients.triton.statistics import ModelStatistics
from mcts_ext.contract import MODEL_NAME
from training.shards import find_shards

LEDGER_BYTES = 1 << 30
"""Lines for ten million shards."""
POLL_S = 1.0
SAY_S = 60.0


class RecordedRounds:
    """Counts the rounds of all shards that were ever seen below a folder, reading each shard once.

    Args:
        records: the folder.
        ledger: a file with a line for each shard that was counted, which therefore may be removed; written here.
    """

    def __init__(self, records: Path, ledger: Path) -> None:
        self._records = records
        self._ledger = ledger
        self._rounds: dict[str, int] = {}
        for line in read_small(ledger, most_bytes=LEDGER_BYTES).splitlines() if ledger.exists() else ():
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                name, rounds = json.loads(line)  # a line was cut off when the process that wrote it was killed
                self._rounds[str(name)] = int(rounds)
        self._known = {os.path.realpath(records / name) for name in self._rounds}
        self.troubles: dict[str, str] = {}
        """Why each shard that is not counted is not, by path."""

    def count(self) -> int:
        """Rounds so far. What is no shard has none; one that can't be read now is tried again at the next count.

        Raises:
            OSError: the ledger can't be written.
        """
        found: list[tuple[str, int]] = []
        for path in map(str, find_shards([self._records], on_error=self._note_folder)):
            if path in self._known:
                continue
            try:
                found.append((os.path.relpath(path, os.path.realpath(self._records)), len(rounds_of(Path(path)))))
            except (ShardGone, ShardUnavailable) as error:
                if isinstance(error, ShardUnavailable):
                    self.troubles[path] = str(error)
                continue
            except ShardError as error:
                self.troubles[path] = str(error)
            else:
                self.troubles.pop(path, None)
            self._known.add(path)
        if found:
            with self._ledger.open("a") as file:
                # Begun on a line of its own, for the last one may have been cut off.
                file.write("".join(f"\n{json.dumps(line)}" for line in found))
                file.flush()
                os.fsync(file.fileno())
            self._rounds |= dict(found)
        return sum(self._rounds.values())

    def _note_folder(self, error: OSError) -> None:
        self.troubles[str(error.filename)] = f"expected to list {error.filename}, got: {error.strerror}"


def wait_for_rounds(
    recorded: RecordedRounds, wanted: int, *, before: int, url: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Wait until `wanted` rounds are recorded, and sum up what happened meanwhile.

    Args:
        recorded: counts them.
        wanted: since the first of all.
        before: of these, what earlier generations asked for.
        url: the server that the players ask; it counts their evaluations.
        say: told once a minute how far they are.

    Returns:
        A summary as self-play of one's own leaves it; its `rounds` are those of the time spent waiting, its
        `rounds_before` those that were there already.
    """
    history, began = History(), time.monotonic()
    at_start, said = recorded.count(), began
    with ModelStatistics(url, model=MODEL_NAME) as statistics:
        at_first = None
        while True:
            looked = time.monotonic()
            found, now = recorded.count(), time.monotonic()
            done = {"rounds": float(found - at_start)}
            with contextlib.suppress(EvaluatorError):  # a server that is away has its own watch
                counts = statistics.read()
                at_first = at_first or counts
                done |= counts.minus(at_first).for_sample()
                done["evaluations"] = done["leaves"] = done["execution_rows"]
            history.add(now - began, done)
            if found >= wanted:
                return summarize(history, rounds_before=at_start - before)
            if now - said >= SAY_S:
                said = now
                rate = history.recent(SAY_S).rounds_per_min
                say(f"{found:,} of {wanted:,} rounds recorded, {rate:,.0f} a minute")
                if recorded.troubles:
                    first = next(iter(recorded.troubles.values()))
                    say(f"not counted: {len(recorded.troubles)} (the first: {first})")
            time.sleep(max(POLL_S, 10 * (now - looked)))  # shards by the hundred thousand take a while to list
