# SPDX-License-Identifier: Apache-2.0
"""`blobzero train`: train a network on records."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from blobzero.arguments import Range
from training.config import TrainConfig
from ui.console import facts, plain_console
from ui.next_step import propose, quoted
from ui.progress import ticker
from ui.stopping import INTERRUPTED, stop_signals

if TYPE_CHECKING:  # PyTorch takes seconds to import
    from training.trainer import Progress, TrainReport


@dataclass(frozen=True)
class TrainCommand:
    """Train on records; write checkpoints, metrics and the training state to a folder, from which a run resumes."""

    records: tuple[Path, ...]
    """Folders of runs, or folders that contain runs; shards may be added meanwhile."""
    out: Path
    """Folder of the training run; an existing run is continued."""
    steps: Annotated[int, Range(1, 10**9)] = 2000
    """Total number of steps."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    json: bool = False
    """Print the report as JSON on standard output."""


def train(command: TrainCommand) -> int:
    """Train, report, and return the exit status: 0, or 130 when interrupted."""
    console = plain_console(stderr=True)
    console.print(f"training on {', '.join(map(str, command.records))} until step {command.steps}")
    from training.trainer import train as run

    with stop_signals() as was_stopped, ticker(console, "steps", total=command.steps) as tick:
        report = run(
            command.train,
            records=command.records,
            out=command.out,
            until_step=command.steps,
            on_progress=lambda progress: tick(progress.step, lambda: _figures(progress)),
            on_event=console.print,
            should_stop=was_stopped,
        )
    console.print(facts("training", _facts(report)))
    if report.reason == "reuse":
        console.print(
            f"ended at step {report.step} of {command.steps}: each position was drawn {command.train.max_reuse:g} "
            "times (--max-reuse); record more with blobzero selfplay, then repeat this command"
        )
    if report.reason == "stopped":
        console.print("stopped; the same command resumes")
    board = f"tensorboard --logdir {quoted(command.out / 'tensorboard')}"
    console.print(f"curve    {board}   (numbers: {command.out / 'metrics.jsonl'})")
    console.print(f"written  {report.checkpoint}")
    propose(console, f"blobzero publish {quoted(report.checkpoint)}")
    if command.json:
        print(json.dumps(asdict(report), default=str))
    return INTERRUPTED if report.reason == "stopped" else 0


def _figures(progress: "Progress") -> str:
    line = progress.metrics
    if not line:
        return ""
    return f"policy KL {line['policy_kl']:.4f}  value {line['value_loss']:.4f}  {line['rows_per_s']:,.0f} rows/s"


def _facts(report: "TrainReport") -> Iterator[tuple[str, str]]:
    since = f" ({report.resumed_from:,} before)" if report.resumed_from else ""
    yield "steps", f"{report.step:,}{since} in {report.seconds:.1f} s"
    yield "rows/s", f"{report.rows_per_s:,.0f}"
    for name in ("policy_loss", "policy_kl", "value_loss"):
        if name in report.metrics:
            yield name.replace("_", " "), f"{report.metrics[name]:.4f}"
    yield "positions", f"{report.positions_available:,} in {report.shards:,} shards"
    yield "window", f"{report.window:,}"
    yield "draws per position", f"{report.positions_drawn / max(1, report.positions_available):.2f}"
    if report.set_aside:
        yield "skipped shards", f"{len(report.set_aside):,}"
    if report.rounds_again:
        yield "duplicate rounds", f"{report.rounds_again:,}"
