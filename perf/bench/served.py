# SPDX-License-Identifier: Apache-2.0
"""The served model in benchmarks: its repository, and a closed loop of requests with the CPU time it takes."""

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
from serving.embedded import EmbeddedTriton, own_server

REPOSITORY: Final = Path("model_repo")
IN_FLIGHT: Final = 4
"""Requests that a client keeps in flight under pure load: one is computed, one waits, two are on their way."""

PARTS: Final = ("client", "server", "backend")
CpuSeconds = Callable[[], NDArray[np.float64]]
"""Returns the CPU seconds so far of client, server and backend."""


@dataclass(frozen=True)
class Work:
    """Rows answered in an interval, and the CPU time they took."""

    rows: float
    seconds: float
    cpu_s: NDArray[np.float64]
    """CPU seconds of client, server and backend."""
    mean_execution_rows: float = 0.0
    """Mean batch size of the server; 0 if unknown."""

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds


def us_per_row(works: Sequence[Work]) -> dict[str, float]:
    """Return microseconds of CPU time per row in `client`, `server` and `backend`.

    All works count together, because the kernel counts another process's time in hundredths of a second.
    """
    us = 1e6 * np.sum([work.cpu_s for work in works], axis=0) / sum(work.rows for work in works)
    return {part: round(float(value), 3) for part, value in zip(PARTS, us, strict=True)}


@contextlib.contextmanager
def served_model(say: Say, repository: Path) -> Iterator[tuple[EmbeddedTriton, Path]]:
    """Serve a repository (`served_repository`) with Triton; yield the server and the file of its latest model."""
    with served_repository(say, path=repository) as path, own_server(path, say=say, is_watched=False) as triton:
        yield triton, latest_model_file(path, MODEL_NAME)


@contextlib.contextmanager
def served_repository(say: Say, *, path: Path = REPOSITORY) -> Iterator[Path]:
    """Yield the repository if it holds a model, otherwise a temporary one with an untrained `reference` network."""
    try:
        latest_model_file(path, MODEL_NAME)
    except ModelNotFound:
        pass
    else:
        yield path
        return
    from export.publishing.publish import ensure_model  # PyTorch takes seconds to import

    say(f"{path} holds no model; publishing an untrained reference network in a temporary folder")
    with tempfile.TemporaryDirectory(prefix="blobzero-bench-") as folder:
        ensure_model(Path(folder))
        yield Path(folder)


def own_cpu(triton: EmbeddedTriton | None) -> NDArray[np.float64]:
    """Return the CPU seconds of this process as the client and, if there is one, of the server and its backend."""
    cpu = None if triton is None else triton.cpu_seconds()
    return np.array([time.process_time(), cpu.server_s if cpu else 0.0, cpu.backend_s if cpu else 0.0])


def closed_loop(
    evaluator: Evaluator, positions: NDArray[np.uint8], *, batch: int, seconds: float, cpu_seconds: CpuSeconds
) -> Work:
    """Keep `IN_FLIGHT` requests of `batch` rows at the evaluator for `seconds`, then wait for their answers.

    `perf.load` cannot replace this: it only knows servers, and its clients are other processes.
    """
    starts = range(0, max(1, len(positions) - batch + 1), batch)
    batches = itertools.cycle(positions[start : start + batch] for start in starts)
    n_sent = IN_FLIGHT
    cpu, began = cpu_seconds(), time.monotonic()
    for tag in range(IN_FLIGHT):
        evaluator.submit(next(batches), tag=tag)
    while time.monotonic() - began < seconds:
        tag, _ = evaluator.wait()
        evaluator.submit(next(batches), tag=tag)
        n_sent += 1
    for _ in range(IN_FLIGHT):
        evaluator.wait()
    return Work(n_sent * batch, time.monotonic() - began, cpu_seconds() - cpu)
