# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a self-play run: a live table while it plays, the summary at its end."""

import contextlib
from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from blobzero.console import plain_console
from blobzero.runfolder import RunFolder
from clients.report import OLD_MACHINE, OLD_SYSTEM
from clients.telemetry import History

PLAIN_INTERVAL_S = 10.0
"""Where there is no terminal to redraw, a line this often."""


class Display:
    """Lines, a live table, a summary: on a terminal redrawn, elsewhere one line at a time."""

    def __init__(self, *, to_stderr: bool) -> None:
        self.console = plain_console(stderr=to_stderr)
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._next_line_s = PLAIN_INTERVAL_S

    def say(self, text: str) -> None:
        """One event, one line."""
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
            rows = total.mean_execution_rows
            self.say(
                f"{total.seconds:6.0f} s  {int(total.rounds)} rounds  {total.rounds_per_min:.0f} rounds/min  "
                f"{total.evaluations_per_s:,.0f} evaluations/s" + (f"  {rows:.0f} rows/execution" if rows else "")
            )

    def summary(self, summary: dict[str, Any], folder: RunFolder, *, comparable: bool) -> None:
        """The table at the end, and where things are."""
        table = Table(title="self-play", show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        for name, text in _summary_rows(summary):
            table.add_row(name, text)
        self.console.print(table)
        if comparable and summary["rounds_per_min"]:
            self._compare(summary)
        self.say(f"records  {folder.shards}  ({summary['records']:,} decisions)")
        self.say(f"picture  {folder.picture}")
        self.say(f"summary  {folder.summary}")

    def _compare(self, summary: dict[str, Any]) -> None:
        machine = summary["machine"]
        table = Table(title="rounds/min at 4 players, 5 cards, 3 x 30; the old network had 4.9M parameters")
        table.add_column("system")
        table.add_column("on")
        table.add_column("rounds/min", justify="right")
        table.add_column("this run is", justify="right")
        for what, rate in OLD_SYSTEM:
            table.add_row(f"old, {what}", OLD_MACHINE, f"{rate:g}", f"{summary['rounds_per_min'] / rate:.1f} x")
        on = (
            f"{machine['cpu']}, {machine['cores']} cores, no GPU here" if summary["config"]["url"] is None else "remote"
        )
        table.add_row("this run", on, f"{summary['rounds_per_min']:,.0f}", "")
        self.console.print(table)


def _rates(history: History) -> Table:
    """The live figures: the last ten seconds beside the whole run."""
    recent, total = history.recent(), history.total
    table = Table()
    for heading in ("", "rounds/min", "evaluations/s", "rows/execution", "cache hits", "queue ms", "compute ms"):
        table.add_column(heading, justify="right")
    for name, sample in (("last 10 s", recent), ("in all", total)):
        rows = sample.mean_execution_rows
        table.add_row(
            name,
            f"{sample.rounds_per_min:,.0f}",
            f"{sample.evaluations_per_s:,.0f}",
            f"{rows:.0f}" if rows else "-",
            f"{100 * sample.cache_hit_rate:.1f}%",
            f"{sample.queue_ms:.1f}",
            f"{sample.compute_ms:.1f}",
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
        ("answered without the network", f"{100 * summary['cache_hit_rate']:.1f}%"),
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
