# SPDX-License-Identifier: Apache-2.0
"""Publishing under load: what clients notice while version after version is published.

Clients keep a server busy, each with one request in flight, while `blobzero publish` runs again and again, with two
networks in turn. Every answer is compared with that of the network which its version must have. Per swap:

- *live*: from the rename of the version's folder to the first answer of that version to any client;
- *stall*: the longest time in which no client got an answer, from the rename until a second after the command's end.
"""

import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import BlobError
from perf.bench.measure import Figure, Plan, Result, figure_table
from perf.load.sender.rows import search_positions
from serving.embedded import own_server

PUBLISH: Final = python_command("blobzero.cli", "publish")
CALM_S: Final = 1.0
"""Pause before the first swap and after each."""
N_SWAPS: Final = 20
N_QUICK_SWAPS: Final = 4
N_CLIENTS: Final = 8
N_ROWS: Final = 256
"""Rows per request; self-play sends some 600."""


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent and answered, in seconds of the wall clock, and the result."""

    sent: float
    came: float
    version: int
    """Version that answered; 0 if the request failed."""
    fault: str = ""
    """Why it failed, or that the outputs are not those of the version's network."""


@dataclass
class Client:
    """One client in a thread."""

    url: str
    rows: NDArray[np.uint8]
    expected: Sequence[NDArray[np.float32]]
    """Logits `[n, A]` of the networks of the even and of the odd versions."""
    answers: list[Answer] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Send requests until stopped, without retries, so that every failure shows."""
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
    """A publish command failed."""


def run(plan: Plan, *, swaps: int | None = None, rows: int = N_ROWS, preset: str = "reference") -> Result:
    """Measure; see the module's docstring."""
    swaps = swaps or (N_QUICK_SWAPS if plan.quick else N_SWAPS)
    with tempfile.TemporaryDirectory(prefix="blobzero-swap-") as name:
        folder = Path(name)
        checkpoints = _checkpoints(folder, preset)
        repository = folder / "models"
        for checkpoint in reversed(checkpoints):  # version 1 is odd
            _publish(checkpoint, repository)
        positions = search_positions(1)[:rows]
        log = plan.out / "swap-triton.log"
        with own_server(repository, say=plan.say, log_file=log, is_watched=False) as triton:
            expected = [_logits(repository / MODEL_NAME / str(version) / "model.onnx", positions) for version in (2, 1)]
            clients = [Client(triton.url, positions, expected) for _ in range(N_CLIENTS)]
            stop = threading.Event()
            threads = [threading.Thread(target=client.run, args=(stop,)) for client in clients]
            for thread in threads:
                thread.start()
            try:
                spans = _swap(plan, swaps, repository, checkpoints, triton.url)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
    answers = sorted((a for client in clients for a in client.answers), key=lambda answer: answer.came)
    points = [_point(version, *span, answers) for version, span in spans.items()]
    failed = [answer for answer in answers if answer.version == 0]
    mixed = [answer for answer in answers if answer.version and answer.fault]
    older = sum(a.version > b.version > 0 for client in clients for a, b in pairwise(client.answers))
    seconds = answers[-1].came - answers[0].came
    figures = {
        "live_s": Figure.of([point["live_s"] for point in points]),
        "stall_ms": Figure.of([1e3 * point["stall_s"] for point in points]),
        "slowest_request_ms": Figure.of([1e3 * point["slowest_s"] for point in points]),
        "command_s": Figure.of([point["command_s"] for point in points]),
        "rows_per_s": Figure.of([len(answers) * rows / seconds]),
        "failed_requests": Figure.of([len(failed)]),
        "mixed_answers": Figure.of([len(mixed)]),
        "older_after_newer": Figure.of([older]),
    }
    table = figure_table(f"{swaps} swaps under {N_CLIENTS} clients, {preset}", figures)
    table.add_row("requests", f"{len(answers):,}")
    return Result(
        level="swap",
        config={"swaps": swaps, "clients": N_CLIENTS, "rows": rows, "preset": preset},
        repeats=swaps,
        figures=figures,
        points=points,
        tables=[table],
        notes=[answer.fault for answer in (*failed[:3], *mixed[:3])],
    )


def _checkpoints(folder: Path, preset: str) -> list[Path]:
    """Save two networks, for the even and the odd versions."""
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
    plan: Plan, swaps: int, repository: Path, checkpoints: Sequence[Path], url: str
) -> dict[int, tuple[float, float, float]]:
    """Publish; return by version when the command began, when the folder was renamed, and when the command ended."""
    spans: dict[int, tuple[float, float, float]] = {}
    time.sleep(CALM_S)
    for version in range(3, 3 + swaps):
        began = time.time()
        _publish(checkpoints[version % 2], repository, "--url", url, "--keep", "3")
        ended = time.time()
        renamed = (repository / MODEL_NAME / str(version)).stat().st_ctime  # the rename is its last change
        spans[version] = (began, renamed, ended)
        plan.say(f"version {version} published in {ended - began:.1f} s")
        time.sleep(CALM_S)
    return spans


def _logits(path: Path, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    with LocalEvaluator(path) as evaluator:
        return evaluate(evaluator, rows).logits


def _point(version: int, began: float, renamed: float, ended: float, answers: Sequence[Answer]) -> dict[str, float]:
    """Return one swap as seen by the clients; `slowest_s` is the longest wait for one request."""
    during = [answer for answer in answers if renamed <= answer.came <= ended + CALM_S]
    live = next((answer.came for answer in answers if answer.version == version), float("inf"))
    return {
        "version": version,
        "command_s": ended - began,
        "live_s": live - renamed,
        "stall_s": max((after.came - before.came for before, after in pairwise(during)), default=float("inf")),
        "slowest_s": max((answer.came - answer.sent for answer in during), default=float("inf")),
    }
