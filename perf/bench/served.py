# SPDX-License-Identifier: Apache-2.0
"""The served model as the benchmarks use it: its repository, positions to ask about, and a load of requests."""

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from clients.errors import ModelNotFound
from clients.evaluator import Evaluator
from clients.local import latest_model_file
from clients.triton.statistics import ModelStatistics
from mcts_ext.contract import MODEL_NAME, OBSERVATION_BYTES
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from perf.bench.deals import CARDS, PLAYERS, TRUMPS
from perf.bench.measure import Say
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton

REPOSITORY: Final = Path("model_repo")
IN_FLIGHT: Final = 4
"""Requests that a client under pure load keeps at the server: one is computed, one waits, two are on their way."""
N_POSITIONS: Final = 4096

CpuSeconds = Callable[[], tuple[float, float, float]]
"""Processor seconds so far of client, server and backend."""


@dataclass(frozen=True)
class Work:
    """Rows answered in a stretch of time, and the processor seconds that went into them."""

    rows: float
    seconds: float
    client_s: float
    server_s: float
    backend_s: float

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds


@dataclass(frozen=True)
class Split:
    """Microseconds of processor time that a row takes in each process."""

    client_us: float
    server_us: float
    backend_us: float

    @classmethod
    def of(cls, works: Sequence[Work]) -> "Split":
        """Over all of them together: the kernel counts another process's time in hundredths of a second."""
        rows = sum(work.rows for work in works) / 1e6
        return cls(
            sum(work.client_s for work in works) / rows,
            sum(work.server_s for work in works) / rows,
            sum(work.backend_s for work in works) / rows,
        )


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


@contextlib.contextmanager
def served(repository: Path, *, log_file: Path) -> Iterator[tuple[EmbeddedTriton, ModelStatistics]]:
    """A Triton of this repository, and what it counts."""
    with (
        EmbeddedTriton(ServerConfig(repository, log_file=log_file)) as triton,
        ModelStatistics(triton.url, model=MODEL_NAME) as statistics,
    ):
        yield triton, statistics


def own_cpu(triton: EmbeddedTriton | None) -> tuple[float, float, float]:
    """Processor seconds of this process as the client, and of the server and its backend where there is one."""
    if triton is None:
        return time.process_time(), 0.0, 0.0
    cpu = triton.cpu_seconds()
    return time.process_time(), cpu.server_s, cpu.backend_s


def closed_loop(
    evaluator: Evaluator, positions: NDArray[np.uint8], *, batch: int, seconds: float, cpu_seconds: CpuSeconds
) -> Work:
    """Keep `IN_FLIGHT` requests of `batch` rows each at the evaluator for so long, then let them be answered."""
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
    return Work(n_answered * batch, took, *spent)


def positions_in_play(n: int, *, seed: int) -> NDArray[np.uint8]:
    """`[n, F]` positions of rounds of one shape, every decision of rounds that are played at random."""
    random = Random(seed)
    rows: list[bytes] = []
    while len(rows) < n:
        trump = random.choice(TRUMPS)
        table = Round.deal(PLAYERS, CARDS, random.randrange(PLAYERS), trump, random.getrandbits(62))
        while not table.is_over:
            rows.append(observation(table))
            table.apply(random.choice(table.legal_actions()))
    return np.frombuffer(b"".join(rows[:n]), np.uint8).reshape(n, OBSERVATION_BYTES)


def multiply_adds(repository: Path) -> int:
    """Multiplications, each with its addition, that the matrices of the latest version take for one row."""
    graph = onnx.load(str(latest_model_file(repository, MODEL_NAME))).graph
    sizes = {constant.name: int(np.prod(constant.dims)) for constant in graph.initializer if len(constant.dims) == 2}
    producers = {name: node for node in graph.node for name in node.output}
    total = 0
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        name = node.input[1]
        while name not in sizes and name in producers and producers[name].input:  # an int8 matrix and its scales
            name = producers[name].input[0]
        total += sizes.get(name, 0)
    return total
