# SPDX-License-Identifier: Apache-2.0
"""Summary of a self-play run."""

from typing import Any

from clients.provenance import machine
from clients.selfplay.telemetry import History


def summarize(history: History, **extra: Any) -> dict[str, Any]:
    """Return the figures of a run under their JSON keys; `extra` adds further entries."""
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
