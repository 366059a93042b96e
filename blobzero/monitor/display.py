# SPDX-License-Identifier: Apache-2.0
"""Terminal display of a self-play run: live table and final summary."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from clients.files import write_whole
from clients.selfplay.folder import RunFolder
from clients.selfplay.telemetry import History
from ui.console import plain_console
from ui.figures import new_figure, plain, png, thousands
from ui.next_step import quoted

PLAIN_INTERVAL_S = 10.0
"""Interval of progress lines without a terminal."""


class Display:
    """Shows lines, a live table and a summary; without a terminal, lines only."""

    def __init__(self, *, to_stderr: bool) -> None:
        self.console = plain_console(stderr=to_stderr)
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._next_line_s = PLAIN_INTERVAL_S

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, soft_wrap=True)

    @contextlib.contextmanager
    def live(self, rounds: int, minutes: float | None) -> Iterator[None]:
        """Show progress while the body runs."""
        limit = f", at most {minutes:g} min" if minutes is not None else ""
        self.say(f"playing {rounds} rounds{limit}")
        if not self.console.is_terminal:
            yield
            return
        self._progress = Progress(
            TextColumn("rounds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
            console=self.console,
        )  # fmt: skip
        self._progress.add_task("rounds", total=rounds)
        with Live(self._progress, console=self.console, refresh_per_second=4) as self._live:
            yield
        self._live = None

    def update(self, history: History) -> None:
        """Show the latest sample."""
        total = history.total
        if self._live is not None and self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=int(total.rounds))
            self._live.update(Group(self._progress, _rates(history)))
        elif total.seconds >= self._next_line_s:
            self._next_line_s = total.seconds + PLAIN_INTERVAL_S
            rows = total.server.mean_execution_rows
            self.say(
                f"{total.seconds:6.0f} s  {int(total.rounds)} rounds  {total.rounds_per_min:.0f} rounds/min  "
                f"{total.evaluations_per_s:,.0f} evaluations/s" + (f"  {rows:.0f} rows/execution" if rows else "")
            )

    def summary(self, summary: dict[str, Any], folder: RunFolder, *, is_part: bool) -> None:
        """Show the final table, the paths and, unless part of another verb, the next command."""
        table = Table(title="self-play", show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        for name, text in _summary_rows(summary):
            table.add_row(name, text)
        self.console.print(table)
        self.say(f"records  {folder.shards}  ({summary['records']:,} decisions added)")
        self.say(f"picture  {folder.picture}")
        self.say(f"summary  {folder.summary}")
        if not is_part:
            more = f"--rounds {10 * summary['config']['rounds']} --out {quoted(folder.path)}"
            self.say(f"next     the same command with {more} continues in the same folder")


def _rates(history: History) -> Table:
    """Return the live table: the last ten seconds and the whole run."""
    recent, total = history.recent(), history.total
    table = Table()
    for heading in ("", "rounds/min", "evaluations/s", "rows/execution", "queue ms", "compute ms"):
        table.add_column(heading, justify="right")
    for name, sample in (("last 10 s", recent), ("total", total)):
        rows = sample.server.mean_execution_rows
        table.add_row(
            name,
            f"{sample.rounds_per_min:,.0f}",
            f"{sample.evaluations_per_s:,.0f}",
            f"{rows:.0f}" if rows else "-",
            f"{sample.server.queue_ms:.1f}",
            f"{sample.server.compute_ms:.1f}",
        )
    return table


def _summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("rounds", f"{summary['rounds']:,} in {summary['seconds']:.1f} s"),
        ("rounds/min", f"{summary['rounds_per_min']:,.1f}"),
        ("decisions searched", f"{summary['decisions']:,}"),
        ("simulations", f"{summary['simulations']:,}"),
        ("evaluations", f"{summary['evaluations']:,}"),
        ("evaluations/s", f"{summary['evaluations_per_s']:,.0f}"),
    ]
    if summary["mean_execution_rows"]:
        rows.append(("rows per execution", f"{summary['mean_execution_rows']:.0f}"))
        rows.append(("queue, compute", f"{summary['queue_ms']:.1f} ms, {summary['compute_ms']:.1f} ms"))
    rows.append(("CPU of the workers", f"{summary['client_cpu_s']:.1f} s"))
    if summary["server_cpu_s"] is not None:
        rows.append(("CPU of the server", f"{summary['server_cpu_s']:.1f} s"))
    if summary["model_version"] is not None:
        rows.append(("model version", str(summary["model_version"])))
    if summary["restarts"]:
        rows.append(("workers restarted", str(summary["restarts"])))
    return rows


def draw(history: History, path: Path, *, title: str) -> None:
    """Write a chart of throughput and batch sizes over the run."""
    total, steps = history.total, history.steps()
    seconds = [at for at, _ in steps]
    figure, (top, bottom) = new_figure("seconds of play", "rounds finished", "evaluations / s", height=6)
    title = f"{plain(title)}: {total.rounds_per_min:,.0f} rounds/min, {total.evaluations_per_s:,.0f} evaluations/s"
    figure.suptitle(title)
    top.plot([sample.seconds for sample in history.samples], [sample.rounds for sample in history.samples])
    bottom.plot(seconds, [step.evaluations_per_s for _, step in steps], color="tab:orange")
    if not steps:  # the run is shorter than a step
        bottom.axhline(total.evaluations_per_s, color="tab:orange")
    bottom.yaxis.label.set_color("tab:orange")
    for axes in (top, bottom):
        axes.set_ylim(bottom=0)
        thousands(axes.yaxis)
    rows = [(at, n_rows) for at, step in steps if (n_rows := step.server.mean_execution_rows) is not None]
    if rows:
        right = bottom.twinx()
        right.plot([at for at, _ in rows], [n for _, n in rows], color="tab:green")
        right.set_ylabel("rows per execution", color="tab:green")
        right.set_ylim(bottom=0)
    write_whole(path, png(figure))
