# SPDX-License-Identifier: Apache-2.0
"""Pictures of a load test, each as the bytes of a PNG."""

from collections import Counter
from collections.abc import Mapping, Sequence

from perf.load import Point, Slo
from ui.figures import new_figure, png, thousands


def latency(curves: Mapping[str, Sequence[Point]], knees: Mapping[str, Point], slo: Slo | None) -> bytes:
    """Latency against throughput, by transport: p50 as a line, p99 dashed, the knee ringed."""
    figure, (axes,) = new_figure("requests/s answered", "latency, ms", height=5)
    for name, points in curves.items():
        ordered = sorted(points, key=lambda point: point.load.rate or point.load.concurrency or 0)
        at = [point.requests_per_s for point in ordered]
        line = axes.plot(at, [point.p50_ms for point in ordered], "o-", label=f"{name} p50")[0]
        axes.plot(
            at, [point.p99_ms for point in ordered], "s--", color=line.get_color(), alpha=0.7, label=f"{name} p99"
        )
        for point in ordered:
            text = f"{point.load.concurrency}" if point.load.concurrency else ""
            axes.annotate(text, (point.requests_per_s, point.p50_ms), textcoords="offset points", xytext=(5, -10))
        if (best := knees.get(name)) is not None:
            axes.plot(
                best.requests_per_s, best.p50_ms, "o", markersize=16, fillstyle="none", color=line.get_color(),
                label=f"{name} knee ({best.load})",
            )  # fmt: skip
    if slo is not None:
        axes.axhline(slo.limit_ms, color="grey", linewidth=0.8, label=f"{slo.name} = {slo.limit_ms:g} ms")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    thousands(axes.xaxis)
    axes.legend(fontsize="small")
    return png(figure)


def batches(points: Sequence[Point]) -> bytes:
    """Where the rows went: the share of rows by the size of the execution that they were in, for each load."""
    figure, (axes,) = new_figure("rows in an execution", "share of all rows up to that size", height=4)
    for point in points:
        sizes = Counter(point.server.batch_sizes if point.server else {})
        total = sum(rows * n for rows, n in sizes.items())
        if total:
            at, below = [0], [0.0]
            for rows in sorted(sizes):
                at.append(rows)
                below.append(below[-1] + rows * sizes[rows] / total)
            axes.step(at, below, where="post", label=str(point.load))
    axes.set_ylim(0, 1.02)
    if len(points) <= 10:
        axes.legend(fontsize="small")
    return png(figure)
