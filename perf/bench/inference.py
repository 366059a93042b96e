# SPDX-License-Identifier: Apache-2.0
"""Positions per second of the served model, by batch size, in this process and through Triton.

Every path gets the same rows and the same number of cores. With Triton, one client process keeps a few requests in
flight; the server may merge waiting requests, so small batches measure requests rather than the network.
"""

import contextlib
import os
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from clients.evaluator import Evaluator
from clients.local import LocalEvaluator
from clients.triton.channel import open_channel
from clients.triton.evaluator import TritonEvaluator
from clients.triton.wire import encode_request
from perf.bench import served
from perf.bench.measure import MIN_REPEATS, Figure, Plan, Result, interleave
from perf.bench.served import Work
from perf.load import Target
from perf.load.sender.rows import search_positions
from perf.load.sender.transports import request_head
from serving.embedded import EmbeddedTriton
from ui.console import new_table

BATCHES: Final = (1, 8, 32, 128, 512, 1024)
IN_PROCESS: Final = ("openvino", "onnxruntime")
WIRE_BATCH: Final = 512
REST_S: Final = 0.1
"""Pause between two cases: ONNX Runtime's threads spin for some 80 ms after their last batch."""


def run(plan: Plan, *, repository: Path = served.REPOSITORY, window_s: float | None = None) -> Result:
    """Measure every batch size on every path."""
    window_s = window_s or (0.15 if plan.quick else 1.5)
    cores = len(os.sched_getaffinity(0))
    positions = search_positions(0)
    descriptions: list[str] = []
    with contextlib.ExitStack() as stack:
        triton, model = stack.enter_context(served.served_model(plan.say, repository))
        paths: dict[str, Evaluator] = {}
        for engine in IN_PROCESS:
            local = LocalEvaluator(model, engine=engine, threads=cores, on_event=descriptions.append)
            paths[engine] = stack.enter_context(local)
        paths["triton"] = stack.enter_context(TritonEvaluator(triton.url))
        sent, answered = bytes_per_row(triton.url, positions[:WIRE_BATCH])
        works = _measure(plan, paths, triton, positions, window_s)
    rates = {case: Figure.of([work.rows_per_s for work in found]) for case, found in works.items()}
    points = [
        {
            "batch": batch,
            "path": path,
            "rows_per_s": round(rates[path, batch].median, 1),
            **{f"{part}_us_per_row": us for part, us in served.us_per_row(found).items()},
        }
        for (path, batch), found in works.items()
    ]

    def best(*names: str) -> Figure:
        return max((rates[case] for case in rates if case[0] in names), key=lambda figure: figure.median)

    return Result(
        level="inference",
        config={
            "quick": plan.quick,
            "window_s": window_s,
            "cores": cores,
            "in_flight": served.IN_FLIGHT,
            "positions": "of a search",
            "model_version": int(model.parent.name),
            "wire_batch": WIRE_BATCH,
            "in_process": descriptions,
        },
        repeats=MIN_REPEATS,
        figures={
            "rows_per_s_triton": best("triton"),
            "rows_per_s_in_process": best(*IN_PROCESS),
            "bytes_sent_per_row": Figure.of([sent]),
            "bytes_answered_per_row": Figure.of([answered]),
        },
        points=points,
        tables=[_table(points, cores)],
    )


def bytes_per_row(url: str, rows: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the bytes per row of a request and of its response."""
    request = encode_request(request_head(Target(url), len(rows)), rows)
    with open_channel(url) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # serialized messages
        answer = infer(request, timeout=20.0)
    return len(request) / len(rows), len(answer) / len(rows)


def _measure(
    plan: Plan, paths: dict[str, Evaluator], triton: EmbeddedTriton, positions: NDArray[np.uint8], window_s: float
) -> dict[tuple[str, int], list[Work]]:
    """Measure by path and batch size in turns, after one unmeasured turn: engines prepare for each new batch size."""

    def measure(path: str, batch: int, seconds: float) -> Work:
        time.sleep(REST_S)
        cpu_seconds = partial(served.own_cpu, triton if path == "triton" else None)
        return served.closed_loop(paths[path], positions, batch=batch, seconds=seconds, cpu_seconds=cpu_seconds)

    cases = [(path, batch) for batch in BATCHES for path in paths]
    for case in cases:
        measure(*case, 0.0)
    plan.say(f"inference: {len(cases)} cases, {MIN_REPEATS} times")
    return interleave({case: partial(measure, *case, window_s) for case in cases}, repeats=MIN_REPEATS)


def _table(points: list[dict[str, Any]], cores: int) -> Table:
    title = f"rows/s on {cores} cores, and CPU microseconds per row in client + server + backend"
    table = new_table(title, "rows per request", *IN_PROCESS, "triton", "client + server + backend")
    found = {(point["path"], point["batch"]): point for point in points}
    for batch in BATCHES:
        split = " + ".join(f"{found['triton', batch][f'{part}_us_per_row']:.1f}" for part in served.PARTS)
        rates = [f"{found[path, batch]['rows_per_s']:,.0f}" for path in (*IN_PROCESS, "triton")]
        table.add_row(str(batch), *rates, split)
    return table
