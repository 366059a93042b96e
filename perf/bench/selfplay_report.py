# SPDX-License-Identifier: Apache-2.0
"""Picture and table of the self-play benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from perf.bench.served import PARTS
from ui.console import new_table
from ui.figures import new_figure, png

Points = Sequence[Mapping[str, Any]]


def draw(points: Points) -> bytes:
    """Draw rounds/min over workers, a line per search."""
    figure, (axes,) = new_figure("self-play processes", "rounds/min", height=6)
    figure.suptitle("Self-play, 4 players, 5 cards")
    for search in sorted({_search(point) for point in points}):
        line = sorted((point["workers"], point["rounds_per_min"]) for point in points if _search(point) == search)
        axes.plot(*zip(*line, strict=True), "o-", label="{} x {}".format(*search))
    workers = sorted({point["workers"] for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(workers, list(map(str, workers)))
    axes.set_yscale("log")
    axes.legend()
    return png(figure)


def points_table(points: Points) -> Table:
    """Return a table with a row per case."""
    table = new_table(
        "self-play, 4 players, 5 cards; CPU in microseconds per evaluation", "search", "workers x games", "rounds/min",
        "evaluations/s", "rows/execution", "client", "server", "backend", "MB per worker",
    )  # fmt: skip
    for point in sorted(points, key=lambda point: (_search(point), point["workers"])):
        table.add_row(
            "{} x {}".format(*_search(point)),
            f"{point['workers']} x {point['games_per_worker']}",
            f"{point['rounds_per_min']:,.0f}",
            f"{point['evaluations_per_s']:,.0f}",
            f"{point['mean_execution_rows']:.0f}",
            *(f"{point[f'{part}_us_per_evaluation']:.2f}" for part in PARTS),
            f"{point['client_mb_per_worker']:.0f}",
        )
    return table


def _search(point: Mapping[str, Any]) -> tuple[int, int]:
    return point["determinizations"], point["simulations"]
