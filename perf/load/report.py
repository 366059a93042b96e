# SPDX-License-Identifier: Apache-2.0
"""What a load test leaves: tables for people, and JSON, CSV, one page and its pictures in a folder."""

import base64
import csv
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from clients.files import reason, write_json, write_whole
from mcts_ext.errors import BlobError
from perf.load import Point, Slo, knee
from perf.load import charts as loadcharts
from ui.console import decoration
from ui.figures import PAGE

CLIENT = ("load", "by", "requests/s", "rows/s", "p50", "p90", "p95", "p99", "max", "errors", "CPU us", "late p99")
SERVER = ("load", "by", "queue", "input", "compute", "output", "executions", "rows each", "CPU us", "cores", "GPU")
NOTE = (
    "Latencies and the server's times are milliseconds; the server's are means over requests. CPU us: processor time a "
    "request, of the client processes and of the server with its backends. docs/loadtest.md explains every column."
)


class UnwritableReport(BlobError):
    """A folder that cannot be written."""


@dataclass(frozen=True)
class Results:
    """Everything that a load test found."""

    title: str
    points: Sequence[tuple[str, Point]]
    """Transport and point, in the order measured."""
    slo: Slo | None
    best_rate: float | None
    """The highest requests/s that the promise holds at; None where there was no promise."""
    provenance: Mapping[str, Any]
    """Configuration, model, machine."""

    @property
    def curves(self) -> dict[str, list[Point]]:
        found: dict[str, list[Point]] = {}
        for name, point in self.points:
            found.setdefault(name, []).append(point)
        return found

    @property
    def knees(self) -> dict[str, int]:
        """By transport, where a curve has one: of a search only its end counts."""
        if self.slo is not None:
            return {}
        return {name: at for name, points in self.curves.items() if (at := knee(points)) is not None}

    def to_json(self) -> dict[str, Any]:
        knees = self.knees
        return {
            "points": [{"transport": name, **point.to_json()} for name, point in self.points],
            "knee": {name: {"concurrency": p.load.concurrency, "rate": p.load.rate, "requests_per_s": p.requests_per_s}
                     for name, at in knees.items() for p in [self.curves[name][at]]},
            "slo": None if self.slo is None else {
                "quantile": self.slo.name, "limit_ms": self.slo.limit_ms, "requests_per_s": self.best_rate,
            },
            **self.provenance,
        }  # fmt: skip


def tell(console: Console, results: Results) -> None:
    """Two tables: what the clients saw, and what the server says."""
    for title, names, make in (("clients", CLIENT, client_row), ("server", SERVER, server_row)):
        table = Table(title=f"{results.title}: {title}")
        for name in names:
            table.add_column(name, justify="left" if name in ("load", "by") else "right", no_wrap=True)
        for transport, point in results.points:
            is_knee = results.knees.get(transport) is not None and (
                results.curves[transport][results.knees[transport]] is point
            )
            table.add_row(*make(transport, point), style="bold" if is_knee else "")
        console.print(table)
    for transport, at in results.knees.items():
        best = results.curves[transport][at]
        console.print(
            f"knee     {transport}: {best.load}, {best.requests_per_s:,.0f} requests/s at p50 {best.p50_ms:.2f} ms",
            markup=False,
        )
    for transport, point in results.points:
        for text in (*point.warnings, *(f"{kind}: {why}" for kind, why in point.reasons.items())):
            console.print(f"note     {transport}, {point.load}: {text}", markup=False, soft_wrap=True)


def client_row(transport: str, point: Point) -> tuple[str, ...]:
    errors = ", ".join(f"{n} {kind}" for kind, n in point.errors.items()) or "0"
    cpu_us = point.client_cores / point.requests_per_s * 1e6 if point.requests_per_s else 0.0
    times = (point.p50_ms, point.p90_ms, point.p95_ms, point.p99_ms, point.max_ms)
    return (
        str(point.load),
        transport,
        f"{point.requests_per_s:,.0f}",
        f"{point.rows_per_s:,.0f}",
        *(f"{value:.2f}" for value in times),
        errors,
        f"{cpu_us:.0f}",
        f"{point.late_p99_ms:.2f}" if point.load.is_open else "-",
    )


def server_row(transport: str, point: Point) -> tuple[str, ...]:
    server = point.server
    if server is None:
        return (str(point.load), transport, *["-"] * (len(SERVER) - 2))
    cpu_us = None if server.cores is None else server.cores * point.seconds / max(1, server.requests) * 1e6
    return (
        str(point.load),
        transport,
        *(f"{value:.2f}" for value in (server.queue_ms, server.input_ms, server.infer_ms, server.output_ms)),
        f"{server.executions:,}",
        f"{server.rows_per_execution:.0f}",
        "-" if cpu_us is None else f"{cpu_us:.0f}",
        "-" if server.cores is None else f"{server.cores:.2f}",
        "-" if server.gpu is None else f"{100 * server.gpu:.0f}%",
    )


def write(results: Results, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Write loadtest.json, .csv, .html and, where matplotlib is, the pictures; what was written.

    Raises:
        UnwritableReport: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "loadtest.json", results.to_json())
        pictures: dict[str, bytes] = {}
        with decoration("pictures", say):
            pictures = _pictures(results)
        files = {
            "loadtest.csv": _csv(results),
            "loadtest.html": _page(results, pictures).encode(errors="replace"),
            **{f"{name}.png": image for name, image in pictures.items()},
        }
        for name, content in files.items():
            write_whole(folder / name, content)
    except OSError as error:
        raise UnwritableReport(f"expected to write {folder}, got {reason(error)}; choose another --out") from error
    return [folder / name for name in ("loadtest.json", *files)]


def _pictures(results: Results) -> dict[str, bytes]:
    return {
        "latency": loadcharts.latency(results.curves, results.knees, results.slo),
        **{f"batches-{name}": loadcharts.batches(points) for name, points in results.curves.items()},
    }


def _csv(results: Results) -> bytes:
    """One line a point, flat."""
    rows = []
    for transport, point in results.points:
        found = point.to_json()
        server = found.pop("server") or {}
        server.pop("batch_sizes", None)
        for name in ("reasons", "warnings"):
            del found[name]
        found["errors"] = sum(point.errors.values())
        rows.append({"transport": transport, **found, **{f"server_{name}": value for name, value in server.items()}})
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _page(results: Results, pictures: Mapping[str, bytes]) -> str:
    parts = []
    for name, image in pictures.items():
        parts.append(f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(image).decode()}">')
    for heading, names, make in (("Clients", CLIENT, client_row), ("Server", SERVER, server_row)):
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in make(transport, point)) + "</tr>"
            for transport, point in results.points
        )
        parts.append(f"<h2>{heading}</h2><table><tr>{head}</tr>{body}</table>")
    parts.append(f'<p class="note">{html.escape(NOTE)}</p>')
    return PAGE.format(title=html.escape(results.title), body="\n".join(parts))
