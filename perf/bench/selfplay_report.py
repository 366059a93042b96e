# SPDX-License-Identifier: Apache-2.0
"""What the self-play benchmark leaves for people: CSV, a picture, a table."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from clients.files import write_whole

Points = Sequence[Mapping[str, Any]]


def write_csv(path: Path, points: Points) -> None:
    """One line a case, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(points[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(points)
    write_whole(path, text.getvalue().encode())


def by_setting(points: Points) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    """The points of each (determinizations, simulations), by workers."""
    found: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for point in sorted(points, key=lambda point: point["workers"]):
        found.setdefault((point["determinizations"], point["simulations"]), []).append(point)
    return dict(sorted(found.items()))


def draw(path: Path, points: Points) -> None:
    """Rounds/min over workers, a line a setting."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    workers = sorted({point["workers"] for point in points})
    for (determinizations, simulations), line in by_setting(points).items():
        rates = [point["rounds_per_min"] for point in line]
        label = f"{determinizations} x {simulations}"
        axes.plot([point["workers"] for point in line], rates, marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(workers, [str(n) for n in workers])
    axes.set_xlim(workers[0] / 1.2, workers[-1] * 1.2)
    axes.set_yscale("log")
    axes.set_xlabel("self-play processes")
    axes.set_ylabel("rounds a minute")
    axes.set_title("Self-play, 4 players, 5 cards")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    plt.close(figure)
    write_whole(path, image.getvalue())


def points_table(points: Points) -> Table:
    """Every case."""
    table = Table(title="self-play, 4 players, 5 cards; CPU in microseconds an evaluation")
    for heading in (
        "search", "workers x games", "rounds/min", "evaluations/s", "rows/execution", "client", "server",
        "backend", "MB a worker",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for (determinizations, simulations), line in by_setting(points).items():
        for point in line:
            table.add_row(
                f"{determinizations} x {simulations}",
                f"{point['workers']} x {point['games_per_worker']}",
                f"{point['rounds_per_min']:,.0f}",
                f"{point['evaluations_per_s']:,.0f}",
                f"{point['mean_execution_rows']:.0f}",
                *(f"{point[f'{part}_us_per_evaluation']:.2f}" for part in ("client", "server", "backend")),
                f"{point['client_mb_per_worker']:.0f}",
            )
    return table
