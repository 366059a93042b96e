# SPDX-License-Identifier: Apache-2.0
"""Report of a load test: tables, and JSON, CSV and pictures in a folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from clients.files import write_json, write_whole
from perf.load import Point, Slo, knee
from ui.console import csv_of, decoration, new_table
from ui.figures import new_figure, png, thousands

CLIENT = ("requests/s", "rows/s", "p50", "p90", "p95", "p99", "max", "errors", "CPU us", "late p99")
SERVER = ("queue", "input", "compute", "output", "executions", "rows each", "CPU us", "cores", "GPU")


@dataclass(frozen=True)
class Results:
    """Results of a load test."""

    title: str
    points: Sequence[tuple[str, Point]]
    """Transport and point, in the order measured."""
    slo: Slo | None
    best_rate: float | None
    """The highest requests/s that meets the objective; None without one."""
    provenance: Mapping[str, Any]
    """Configuration, model and machine."""

    @property
    def curves(self) -> dict[str, list[Point]]:
        """Points by transport."""
        names = dict.fromkeys(name for name, _ in self.points)
        return {name: [point for transport, point in self.points if transport == name] for name in names}

    @property
    def knees(self) -> dict[str, Point]:
        """Knee of each curve, by transport; a search has none."""
        curves = self.curves if self.slo is None else {}
        return {name: points[at] for name, points in curves.items() if (at := knee(points)) is not None}

    def to_json(self) -> dict[str, Any]:
        return {
            "points": [{"transport": name, **point.to_json()} for name, point in self.points],
            "knee": {name: {"concurrency": p.load.concurrency, "rate": p.load.rate, "requests_per_s": p.requests_per_s}
                     for name, p in self.knees.items()},
            "slo": None if self.slo is None else {
                "quantile": self.slo.name, "limit_ms": self.slo.limit_ms, "requests_per_s": self.best_rate,
            },
            **self.provenance,
        }  # fmt: skip


def show_results(console: Console, results: Results) -> None:
    """Print two tables, as seen by the clients and by the server, and notes."""
    knees = results.knees
    for title, headings, make in (("clients", CLIENT, _client_row), ("server", SERVER, _server_row)):
        table = new_table(f"{results.title}: {title}", "load", "by", *headings, left=("load", "by"))
        for name, point in results.points:
            table.add_row(str(point.load), name, *make(point), style="bold" if point is knees.get(name) else "")
        console.print(table)
    for name, best in knees.items():
        rate = f"{best.requests_per_s:,.0f} requests/s at p50 {best.p50_ms:.2f} ms"
        console.print(f"knee     {name}: {best.load}, {rate}")
    for name, point in results.points:
        for text in (*point.warnings, *(f"{kind}: {why}" for kind, why in point.reasons.items())):
            console.print(f"note     {name}, {point.load}: {text}", soft_wrap=True)


def _client_row(point: Point) -> list[str]:
    cpu_us = point.client_cores / point.requests_per_s * 1e6 if point.requests_per_s else 0.0
    times = (point.p50_ms, point.p90_ms, point.p95_ms, point.p99_ms, point.max_ms)
    return [
        f"{point.requests_per_s:,.0f}",
        f"{point.rows_per_s:,.0f}",
        *(f"{value:.2f}" for value in times),
        ", ".join(f"{n} {kind}" for kind, n in point.errors.items()) or "0",
        f"{cpu_us:.0f}",
        f"{point.late_p99_ms:.2f}" if point.load.is_open else "-",
    ]


def _server_row(point: Point) -> list[str]:
    server = point.server
    if server is None:
        return ["-"] * len(SERVER)
    cores = server.cores
    return [
        *(f"{value:.2f}" for value in (server.queue_ms, server.input_ms, server.infer_ms, server.output_ms)),
        f"{server.executions:,}",
        f"{server.rows_per_execution:.0f}",
        "-" if cores is None else f"{cores * point.seconds / max(1, server.requests) * 1e6:.0f}",
        "-" if cores is None else f"{cores:.2f}",
        "-" if server.gpu is None else f"{100 * server.gpu:.0f}%",
    ]


def write(results: Results, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Write loadtest.json, .csv and, if matplotlib is installed, the pictures; return their paths."""
    write_json(folder / "loadtest.json", results.to_json())
    files = {"loadtest.csv": csv_of([_flat(name, point) for name, point in results.points])}
    with decoration("pictures", say):
        files |= {"latency.png": _latency(results)}
        files |= {f"batches-{name}.png": _batches(points) for name, points in results.curves.items()}
    for name, content in files.items():
        write_whole(folder / name, content)
    return [folder / name for name in ("loadtest.json", *files)]


def _flat(transport: str, point: Point) -> dict[str, Any]:
    """Return a point as a row of the CSV file."""
    found = point.to_json()
    server = found.pop("server") or {}
    found |= {"errors": sum(point.errors.values()), **{f"server_{name}": value for name, value in server.items()}}
    for name in ("reasons", "warnings", "server_batch_sizes"):
        found.pop(name, None)
    return {"transport": transport, **found}


def _latency(results: Results) -> bytes:
    """Draw latency over throughput by transport: p50 as a line, p99 dashed, the knee as a ring."""
    figure, (axes,) = new_figure("requests/s answered", "latency, ms", height=5)
    for name, points in results.curves.items():
        ordered = sorted(points, key=lambda point: point.load.rate or point.load.concurrency or 0)
        at = [point.requests_per_s for point in ordered]
        (line,) = axes.plot(at, [point.p50_ms for point in ordered], "o-", label=f"{name} p50")
        color = line.get_color()
        axes.plot(at, [point.p99_ms for point in ordered], "s--", color=color, alpha=0.7, label=f"{name} p99")
        for point in ordered:
            text = f"{point.load.concurrency}" if point.load.concurrency else ""
            axes.annotate(text, (point.requests_per_s, point.p50_ms), textcoords="offset points", xytext=(5, -10))
        if (best := results.knees.get(name)) is not None:
            ring = {"markersize": 16, "fillstyle": "none", "color": color, "label": f"{name} knee ({best.load})"}
            axes.plot(best.requests_per_s, best.p50_ms, "o", **ring)
    if (slo := results.slo) is not None:
        axes.axhline(slo.limit_ms, color="grey", linewidth=0.8, label=f"{slo.name} = {slo.limit_ms:g} ms")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    thousands(axes.xaxis)
    axes.legend(fontsize="small")
    return png(figure)


def _batches(points: Sequence[Point]) -> bytes:
    """Draw the distribution of rows over execution sizes, for each load."""
    figure, (axes,) = new_figure("rows in an execution", "fraction of all rows up to that size", height=4)
    for point in points:
        sizes = point.server.batch_sizes if point.server else {}
        if sizes:
            axes.ecdf(list(sizes), weights=[rows * n for rows, n in sizes.items()], label=str(point.load))
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.02)
    if len(points) <= 10:
        axes.legend(fontsize="small")
    return png(figure)
