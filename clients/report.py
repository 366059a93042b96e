# SPDX-License-Identifier: Apache-2.0
"""What a self-play run leaves for people and programs: summary and picture."""

import io
from pathlib import Path
from typing import Any

from clients.files import write_whole
from clients.provenance import machine
from clients.telemetry import History


def summarize(history: History, **extra: Any) -> dict[str, Any]:
    """The figures of a run, by the names programs read; `extra` adds what the history does not know."""
    total = history.total
    return {
        "rounds": int(total.rounds),
        "seconds": round(total.seconds, 3),
        "rounds_per_min": round(total.rounds_per_min, 2),
        "decisions": int(total.decisions),
        "simulations": int(total.simulations),
        "leaves": int(total.leaves),
        "evaluations": int(total.evaluations),
        "evaluations_per_s": round(total.evaluations_per_s, 1),
        "mean_execution_rows": total.mean_execution_rows and round(total.mean_execution_rows, 1),
        "queue_ms": round(total.queue_ms, 3),
        "compute_ms": round(total.compute_ms, 3),
        "client_cpu_s": round(total.client_cpu_s, 3),
        "records": int(total.records),
        "machine": machine(),
        **extra,
    }


def draw(history: History, path: Path, *, title: str) -> None:
    """A picture of throughput and batch sizes over the run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    total = history.total
    steps = history.steps()
    seconds = [at for at, _ in steps]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    figure.suptitle(f"{title}: {total.rounds_per_min:,.0f} rounds/min, {total.evaluations_per_s:,.0f} evaluations/s")

    top.plot([sample.seconds for sample in history.samples], [sample.rounds for sample in history.samples])
    top.set_ylabel("rounds finished")
    top.set_ylim(bottom=0)
    top.yaxis.set_major_formatter("{x:,.0f}")

    bottom.plot(seconds, [step.evaluations_per_s for _, step in steps], color="tab:orange")
    if not steps:  # too short a run to be cut into steps
        bottom.axhline(total.evaluations_per_s, color="tab:orange")
    bottom.set_ylabel("evaluations / s", color="tab:orange")
    bottom.set_ylim(bottom=0)
    bottom.yaxis.set_major_formatter("{x:,.0f}")
    bottom.set_xlabel("seconds of play")
    rows = [(at, step.mean_execution_rows) for at, step in steps if step.mean_execution_rows is not None]
    if rows:
        right = bottom.twinx()
        right.plot([at for at, _ in rows], [n for _, n in rows], color="tab:green")
        right.set_ylabel("rows per execution", color="tab:green")
        right.set_ylim(bottom=0)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    plt.close(figure)
    write_whole(path, image.getvalue())
