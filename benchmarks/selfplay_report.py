# SPDX-License-Identifier: Apache-2.0
"""What the self-play benchmark leaves for people: CSV, a picture, tables beside the system that this one replaces."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from clients.report import OLD_MACHINE, OLD_RATES, write_aside

Points = Sequence[Mapping[str, Any]]


def write_csv(path: Path, points: Points) -> None:
    """One line a case, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(points[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(points)
    write_aside(path, text.getvalue().encode())


def by_setting(points: Points) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    """The points of each (determinizations, simulations), by workers."""
    found: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for point in sorted(points, key=lambda point: point["workers"]):
        found.setdefault((point["determinizations"], point["simulations"]), []).append(point)
    return dict(sorted(found.items()))


def draw(path: Path, points: Points) -> None:
    """Rounds/min over workers, a line a setting; the old system's rates in the same colour, broken."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    workers = sorted({point["workers"] for point in points})
    for i, ((determinizations, simulations), line) in enumerate(by_setting(points).items()):
        label = f"{determinizations} x {simulations}"
        rates = [point["rounds_per_min"] for point in line]
        axes.plot([point["workers"] for point in line], rates, marker="o", color=f"C{i}", label=f"{label}, here")
        for (how, old), style in zip(OLD_RATES.items(), (":", "-.", "--"), strict=True):
            for rate in old.get((determinizations, simulations), ())[:1]:
                axes.axhline(rate, color=f"C{i}", linestyle=style, linewidth=1, label=f"{label}, old: {how}, {rate:g}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(workers, [str(n) for n in workers])
    axes.set_xlim(workers[0] / 1.2, workers[-1] * 1.2)
    axes.set_yscale("log")
    axes.set_xlabel("self-play processes")
    axes.set_ylabel("rounds a minute")
    axes.set_title(f"Self-play, 4 players, 5 cards; old system on {OLD_MACHINE}")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    plt.close(figure)
    write_aside(path, image.getvalue())


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


def comparison(points: Points) -> Table:
    """The best rate of each setting beside the old system's."""
    table = Table(title=f"rounds/min; the old system on {OLD_MACHINE}; its batch of 30 never left the root")
    table.add_column("search", justify="right")
    for how in OLD_RATES:
        table.add_column(f"old: {how}", justify="right")
    table.add_column("here", justify="right")
    for setting, line in by_setting(points).items():
        best = max(line, key=lambda point: float(point["rounds_per_min"]))
        table.add_row(
            f"{setting[0]} x {setting[1]}",
            *(", ".join(f"{rate:,g}" for rate in old.get(setting, ())) or "-" for old in OLD_RATES.values()),
            f"{best['rounds_per_min']:,.0f} ({best['workers']} workers)",
        )
    return table
