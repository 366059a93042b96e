# SPDX-License-Identifier: Apache-2.0
"""The served model as the benchmarks use it: its repository, positions to ask about, and a load of requests."""

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.errors import ModelNotFound
from clients.evaluator import Evaluator
from clients.local import latest_model_file
from mcts_ext.contract import MODEL_NAME
from perf.bench.measure import Say
from serving.embedded import EmbeddedTriton

REPOSITORY: Final = Path("model_repo")
IN_FLIGHT: Final = 4
"""Requests that a client under pure load keeps at the server: one is computed, one waits, two are on their way."""

PARTS: Final = ("client", "server", "backend")
CpuSeconds = Callable[[], tuple[float, float, float]]
"""Processor seconds so far of client, server and backend."""


@dataclass(frozen=True)
class Work:
    """Rows answered in a stretch of time, and the processor seconds that went into them."""

    rows: float
    seconds: float
    cpu_s: Sequence[float]
    """Of client, server and backend."""
    mean_execution_rows: float = 0.0
    """Of a batch that the server ran, where it was asked."""

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds


def us_per_row(works: Sequence[Work]) -> dict[str, float]:
    """Microseconds of processor time that a row takes in `client`, `server` and `backend`.

    Over all of them together: the kernel counts another process's time in hundredths of a second.
    """
    rows = sum(work.rows for work in works) / 1e6
    cpu_s = np.sum([work.cpu_s for work in works], axis=0)
    return {part: round(float(s) / rows, 3) for part, s in zip(PARTS, cpu_s, strict=True)}


@contextlib.contextmanager
def served_repository(say: Say, *, path: Path = REPOSITORY) -> Iterator[Path]:
    """The repository if it holds a model; else one for the time being, with an untrained `reference` network."""
    try:
        latest_model_file(path, MODEL_NAME)
    except ModelNotFound:
        pass
    else:
        yield path
        return
    from export.publishing.publish import ensure_model  # PyTorch takes seconds to import

    say(f"{path} holds no model; publishing an untrained reference network aside")
    with tempfile.TemporaryDirectory(prefix="blobzero-bench-") as folder:
        ensure_model(Path(folder))
        yield Path(folder)


def own_cpu(triton: EmbeddedTriton | None) -> tuple[float, float, float]:
    """Processor seconds of this process as the client, and of the server and its backend where there is one."""
    if triton is None:
        return time.process_time(), 0.0, 0.0
    cpu = triton.cpu_seconds()
    return time.process_time(), cpu.server_s, cpu.backend_s


def closed_loop(
    evaluator: Evaluator, positions: NDArray[np.uint8], *, batch: int, seconds: float, cpu_seconds: CpuSeconds
) -> Work:
    """Keep `IN_FLIGHT` requests of `batch` rows each at the evaluator for so long, then let them be answered.

    Not `perf.load`, whose requests leave from processes of their own: this one asks an engine in this process alike.
    """
    starts = itertools.cycle(range(0, max(1, len(positions) - batch + 1), batch))
    n_sent = n_answered = 0
    cpu = cpu_seconds()
    began = time.monotonic()
    while n_answered == 0 or n_answered < n_sent:
        while n_sent - n_answered < IN_FLIGHT and (n_sent == 0 or time.monotonic() - began < seconds):
            start = next(starts)
            evaluator.submit(positions[start : start + batch], tag=n_sent)
            n_sent += 1
        evaluator.wait()
        n_answered += 1
    took = time.monotonic() - began
    spent = [after - before for before, after in zip(cpu, cpu_seconds(), strict=True)]
    return Work(n_answered * batch, took, spent)
