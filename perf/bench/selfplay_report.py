# SPDX-License-Identifier: Apache-2.0
"""What the self-play benchmark leaves for people: a picture, a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from perf.bench.served import PARTS
from ui.console import new_table
from ui.figures import new_figure, png

Points = Sequence[Mapping[str, Any]]


def draw(points: Points) -> bytes:
    """Rounds/min over workers, a line a setting."""
    figure, (axes,) = new_figure("self-play processes", "rounds a minute", height=6)
    figure.suptitle("Self-play, 4 players, 5 cards")
    for setting in sorted({_setting(point) for point in points}):
        line = sorted((point["workers"], point["rounds_per_min"]) for point in points if _setting(point) == setting)
        axes.plot(*zip(*line, strict=True), "o-", label="{} x {}".format(*setting))
    workers = sorted({point["workers"] for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(workers, list(map(str, workers)))
    axes.set_yscale("log")
    axes.legend()
    return png(figure)


def points_table(points: Points) -> Table:
    """Every case."""
    table = new_table(
        "self-play, 4 players, 5 cards; CPU in microseconds an evaluation", "search", "workers x games", "rounds/min",
        "evaluations/s", "rows/execution", "client", "server", "backend", "MB a worker",
    )  # fmt: skip
    for point in sorted(points, key=lambda point: (_setting(point), point["workers"])):
        table.add_row(
            "{} x {}".format(*_setting(point)),
            f"{point['workers']} x {point['games_per_worker']}",
            f"{point['rounds_per_min']:,.0f}",
            f"{point['evaluations_per_s']:,.0f}",
            f"{point['mean_execution_rows']:.0f}",
            *(f"{point[f'{part}_us_per_evaluation']:.2f}" for part in PARTS),
            f"{point['client_mb_per_worker']:.0f}",
        )
    return table


def _setting(point: Mapping[str, Any]) -> tuple[int, int]:
    return point["determinizations"], point["simulations"]
