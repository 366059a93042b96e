# SPDX-License-Identifier: Apache-2.0
"""What a self-play run shows: its rates while it plays, and at the end a summary and a chart."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from clients.files import write_whole
from clients.selfplay.folder import RunFolder
from clients.selfplay.telemetry import History
from ui.console import facts
from ui.figures import new_figure, plain, png, thousands
from ui.next_step import propose, quoted


def rates(history: History) -> str:
    """Return the rates of the last ten seconds in one line."""
    recent = history.recent()
    line = f"{recent.rounds_per_min:,.0f} rounds/min  {recent.evaluations_per_s:,.0f} evaluations/s"
    server = recent.server
    if not server.mean_execution_rows:
        return line
    return (
        f"{line}  {server.mean_execution_rows:.0f} rows/execution  queue {server.queue_ms:.1f} ms  "
        f"compute {server.compute_ms:.1f} ms"
    )


def tell(console: Console, summary: dict[str, Any], folder: RunFolder, *, is_part: bool) -> None:
    """Print the final table, the paths and, unless part of another verb, the next command."""
    console.print(facts("self-play", _facts(summary)))
    console.print(f"records  {folder.shards}  ({summary['records']:,} decisions added)")
    console.print(f"picture  {folder.picture}")
    console.print(f"summary  {folder.summary}")
    if not is_part:
        more = f"--rounds {10 * summary['config']['rounds']} --out {quoted(folder.path)}"
        propose(console, f"the same command with {more} continues in the same folder")


def _facts(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "rounds", f"{summary['rounds']:,} in {summary['seconds']:.1f} s"
    yield "rounds/min", f"{summary['rounds_per_min']:,.1f}"
    yield "decisions searched", f"{summary['decisions']:,}"
    yield "simulations", f"{summary['simulations']:,}"
    yield "evaluations", f"{summary['evaluations']:,}"
    yield "evaluations/s", f"{summary['evaluations_per_s']:,.0f}"
    if summary["mean_execution_rows"]:
        yield "rows per execution", f"{summary['mean_execution_rows']:.0f}"
        yield "queue, compute", f"{summary['queue_ms']:.1f} ms, {summary['compute_ms']:.1f} ms"
    yield "CPU of the workers", f"{summary['client_cpu_s']:.1f} s"
    if summary["server_cpu_s"] is not None:
        yield "CPU of the server", f"{summary['server_cpu_s']:.1f} s"
    if summary["model_version"] is not None:
        yield "model version", str(summary["model_version"])
    if summary["restarts"]:
        yield "workers restarted", str(summary["restarts"])


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
