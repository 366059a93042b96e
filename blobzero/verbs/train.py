# SPDX-License-Identifier: Apache-2.0
"""`blobzero train`: train a network on records."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from mcts_ext.errors import InvalidConfig
from training.config import TrainConfig
from ui.console import plain_console
from ui.next_step import quoted
from ui.stopping import stop_signals

if TYPE_CHECKING:  # PyTorch takes seconds to import
    from training.trainer import Progress, TrainReport

PLAIN_INTERVAL_S = 10.0
"""Interval of progress lines without a terminal."""


@dataclass(frozen=True)
class TrainCommand:
    """Train on records; write checkpoints, metrics and the training state to a folder, from which a run resumes."""

    records: tuple[Path, ...]
    """Folders of runs, or folders that contain runs; shards may be added meanwhile."""
    out: Path
    """Folder of the training run; an existing run is continued."""
    steps: int = 2000
    """Total number of steps."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the report as JSON on standard output."""


def train(command: TrainCommand) -> int:
    """Train, report, and return the exit status: 0, or 130 when interrupted."""
    if not 1 <= command.steps <= 10**9:
        raise InvalidConfig(f"expected --steps in 1..{10**9}, got {command.steps}")
    console = plain_console(stderr=True)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    say(f"training on {', '.join(map(str, command.records))} until step {command.steps}")
    from training.trainer import train as run

    with stop_signals() as was_stopped, _progress(console, command.steps, say) as on_progress:
        report = run(
            command.train,
            records=command.records,
            out=command.out,
            until_step=command.steps,
            on_progress=on_progress,
            on_event=say,
            should_stop=was_stopped,
        )
    _summary(report, command, console, say)
    if command.json:
        print(json.dumps(asdict(report), default=str))
    return 130 if report.reason == "stopped" else 0


@contextmanager
def _progress(console: Console, steps: int, say: Callable[[str], None]) -> Iterator[Callable[["Progress"], None]]:
    """Show a progress bar on a terminal, otherwise lines."""
    if not console.is_terminal:
        next_line_s = time.monotonic() + PLAIN_INTERVAL_S

        def line(progress: "Progress") -> None:
            nonlocal next_line_s
            if progress.metrics and time.monotonic() >= next_line_s:
                next_line_s = time.monotonic() + PLAIN_INTERVAL_S
                say(f"step {progress.step}/{steps}  {_figures(progress)}")

        yield line
        return
    with Bar(
        TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=steps)
        yield lambda progress: bar.update(task, completed=progress.step, description=_figures(progress))


def _figures(progress: "Progress") -> str:
    line = progress.metrics
    if not line:
        return ""
    return f"policy KL {line['policy_kl']:.4f}  value {line['value_loss']:.4f}  {line['rows_per_s']:,.0f} rows/s"


def _summary(report: "TrainReport", command: TrainCommand, console: Console, say: Callable[[str], None]) -> None:
    table = Table(title="training", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    since = f" ({report.resumed_from:,} before)" if report.resumed_from else ""
    table.add_row("steps", f"{report.step:,}{since} in {report.seconds:.1f} s")
    table.add_row("rows/s", f"{report.rows_per_s:,.0f}")
    for name in ("policy_loss", "policy_kl", "value_loss"):
        if name in report.metrics:
            table.add_row(name.replace("_", " "), f"{report.metrics[name]:.4f}")
    table.add_row("positions", f"{report.positions_available:,} in {report.shards:,} shards")
    table.add_row("window", f"{report.window:,}")
    table.add_row("draws per position", f"{report.positions_drawn / max(1, report.positions_available):.2f}")
    if report.set_aside:
        table.add_row("skipped shards", f"{len(report.set_aside):,}")
    if report.rounds_again:
        table.add_row("duplicate rounds", f"{report.rounds_again:,}")
    console.print(table)
    if report.reason == "reuse":
        say(
            f"ended at step {report.step} of {command.steps}: each position was drawn {command.train.max_reuse:g} "
            "times (--max-reuse); record more with blobzero selfplay, then repeat this command"
        )
    if report.reason == "stopped":
        say("stopped; the same command resumes")
    board = f"tensorboard --logdir {quoted(command.out / 'tensorboard')}"
    say(f"curve       {board}   (numbers: {command.out / 'metrics.jsonl'})")
    say(f"checkpoint  {report.checkpoint}")
    say(f"next        blobzero publish {quoted(report.checkpoint)}")
