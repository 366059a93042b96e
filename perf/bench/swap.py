# SPDX-License-Identifier: Apache-2.0
"""Publishing under load: what clients notice while version after version is published.

Clients keep a server busy, each with one request in flight, while `blobzero publish` runs again and again, from two
networks in turn. Every answer is compared with that of the network which its version must be. Per swap:

- *live*: from the rename of the version's folder to the first answer of that version to anybody;
- *stall*: the longest time in which nobody got an answer, from the rename until a second after the command's end.
"""

import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.errors import EvaluatorError
from clients.evaluator import evaluate
from clients.local import LocalEvaluator
from clients.processes import python_command
from clients.triton.evaluator import TritonEvaluator
from mcts_ext.errors import BlobError
from perf.bench.measure import Figure, Plan, Result, figure_table
from perf.load.sender.rows import search_positions
from serving.embedded import own_server

PUBLISH: Final = python_command("blobzero.cli", "publish")
CALM_S: Final = 1.0
"""Before the first swap, and after each."""


@dataclass(frozen=True)
class Sizes:
    """What is run."""

    swaps: int
    clients: int = 8
    rows: int = 256
    """Rows of a request: self-play sends some 600."""
    preset: str = "reference"


FULL: Final = Sizes(swaps=20)
QUICK: Final = Sizes(swaps=4)


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent and answered, in seconds of the wall clock, and what came back."""

    sent: float
    came: float
    version: int
    """0 for none."""
    fault: str = ""
    """That it failed, or that the numbers are not those of the version's network."""


@dataclass
class Client:
    """One client in a thread; `answers` grows until it is told to stop."""

    url: str
    rows: NDArray[np.uint8]
    expected: Sequence[NDArray[np.float32]]
    """Logits `[n, A]` of the even and of the odd versions' network."""
    answers: list[Answer] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop; no repeats, so every failure shows."""
        with TritonEvaluator(self.url, server_timeout_s=0.0) as evaluator:
            while not stop.is_set():
                sent = time.time()
                try:
                    found = evaluate(evaluator, self.rows)
                except EvaluatorError as error:
                    self.answers.append(Answer(sent, time.time(), 0, str(error)))
                    continue
                came = time.time()
                own, other = (np.abs(found.logits - self.expected[(found.model_version + k) % 2]) for k in (0, 1))
                is_mixed = bool((own.max(1) > other.max(1)).any())
                fault = f"rows that are not of version {found.model_version}" if is_mixed else ""
                self.answers.append(Answer(sent, came, found.model_version, fault))


class SwapFailed(BlobError):
    """A publish command that failed."""


def run(plan: Plan, *, sizes: Sizes | None = None) -> Result:
    """Measure; see the module's text."""
    sizes = sizes or (QUICK if plan.quick else FULL)
    with tempfile.TemporaryDirectory(prefix="blobzero-swap-") as name:
        folder = Path(name)
        checkpoints = _checkpoints(folder, sizes.preset)
        repository = folder / "models"
        for checkpoint in reversed(checkpoints):  # version 1 is the odd one
            _publish(checkpoint, repository)
        rows = search_positions(1)[: sizes.rows]
        log = plan.out / "swap-triton.log"
        with own_server(repository, say=plan.say, log_file=log, is_watched=False) as triton:
            expected = [_logits(repository / "blobnet" / str(version) / "model.onnx", rows) for version in (2, 1)]
            clients = [Client(triton.url, rows, expected) for _ in range(sizes.clients)]
            stop = threading.Event()
            threads = [threading.Thread(target=client.run, args=(stop,)) for client in clients]
            for thread in threads:
                thread.start()
            try:
                spans = _swap(plan, sizes, repository, checkpoints, triton.url)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
        answers = sorted((a for client in clients for a in client.answers), key=lambda answer: answer.came)
    swaps = [_seen(version, *span, answers) for version, span in spans.items()]
    return _result(sizes, swaps, answers, clients)


def _checkpoints(folder: Path, preset: str) -> list[Path]:
    """Two networks, for the even and the odd versions."""
    from training.checkpoint import save_checkpoint  # PyTorch takes seconds to import
    from training.network import create_network

    paths = [folder / f"{parity}.safetensors" for parity in ("even", "odd")]
    for seed, path in enumerate(paths):
        save_checkpoint(path, create_network(preset, seed=seed), step=seed)
    return paths


def _publish(checkpoint: Path, repository: Path, *more: str) -> None:
    command = [*PUBLISH, str(checkpoint), "--repository", str(repository), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SwapFailed(f"expected {' '.join(command)} to publish, got: {done.stderr.strip()[-500:]}")


def _swap(
    plan: Plan, sizes: Sizes, repository: Path, checkpoints: Sequence[Path], url: str
) -> dict[int, tuple[float, float, float]]:
    """Publish; by version: when the command began, when the folder got its name, when the command ended."""
    spans: dict[int, tuple[float, float, float]] = {}
    time.sleep(CALM_S)
    for version in range(3, 3 + sizes.swaps):
        began = time.time()
        _publish(checkpoints[version % 2], repository, "--url", url, "--keep", "3")
        ended = time.time()
        renamed = (repository / "blobnet" / str(version)).stat().st_ctime  # the rename is its last change
        spans[version] = (began, renamed, ended)
        plan.say(f"version {version} published in {ended - began:.1f} s")
        time.sleep(CALM_S)
    return spans


def _logits(path: Path, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    with LocalEvaluator(path) as evaluator:
        return evaluate(evaluator, rows).logits


def _seen(version: int, began: float, renamed: float, ended: float, answers: Sequence[Answer]) -> dict[str, float]:
    """One publishing, as the clients saw it; `slowest_s` is the longest wait of one request."""
    during = [answer for answer in answers if renamed <= answer.came <= ended + CALM_S]
    live = next((answer.came for answer in answers if answer.version == version), float("inf"))
    return {
        "version": version,
        "command_s": ended - began,
        "live_s": live - renamed,
        "stall_s": max((after.came - before.came for before, after in pairwise(during)), default=float("inf")),
        "slowest_s": max((answer.came - answer.sent for answer in during), default=float("inf")),
    }


def _result(
    sizes: Sizes, swaps: Sequence[dict[str, float]], answers: Sequence[Answer], clients: Sequence[Client]
) -> Result:
    failed = [answer for answer in answers if answer.version == 0]
    mixed = [answer for answer in answers if answer.version and answer.fault]
    older = sum(a.version > b.version > 0 for client in clients for a, b in pairwise(client.answers))
    seconds = answers[-1].came - answers[0].came
    figures = {
        "live_s": Figure.of([swap["live_s"] for swap in swaps]),
        "stall_ms": Figure.of([1e3 * swap["stall_s"] for swap in swaps]),
        "slowest_request_ms": Figure.of([1e3 * swap["slowest_s"] for swap in swaps]),
        "command_s": Figure.of([swap["command_s"] for swap in swaps]),
        "rows_per_s": Figure.of([len(answers) * sizes.rows / seconds]),
        "failed_requests": Figure.of([len(failed)]),
        "mixed_answers": Figure.of([len(mixed)]),
        "older_after_newer": Figure.of([older]),
    }
    table = figure_table(f"{sizes.swaps} swaps under {sizes.clients} clients, {sizes.preset}", figures)
    table.add_row("requests", f"{len(answers):,}")
    return Result(
        level="swap",
        config=asdict(sizes),
        repeats=len(swaps),
        figures=figures,
        points=swaps,
        tables=[table],
        notes=[*(answer.fault for answer in failed[:3]), *(answer.fault for answer in mixed[:3])],
    )
