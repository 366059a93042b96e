# SPDX-License-Identifier: Apache-2.0
"""`blobzero loadtest` beside NVIDIA's perf_analyzer and tritonclient: same server, rows and concurrency, in turns.

`python -m benchmarks.load_peers PERF_ANALYZER --library-path FOLDER` prints the tables of docs/loadtest.md. A client is
a command of its own; its processor time is that of all its processes, once it is up. Three windows of each count.
"""

import csv
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import psutil
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.served import served
from clients.child import python_command
from clients.load.rows import search_positions
from clients.records import write_shard
from mcts_ext.contract import INPUT_NAME, MODEL_NAME, OBSERVATION_BYTES
from mcts_ext.records import Records
from serving.embedded import EmbeddedTriton

WINDOW_S: Final = 2.0
LENIENT: Final = 0.5
"""Windows that differ by so much agree: both take the first three, and repeats in turns do the rest."""
NAMES: Final = ("blobzero", "perf_analyzer", "tritonclient")


@dataclass(frozen=True)
class Peers:
    """Compare three load generators."""

    perf_analyzer: Annotated[Path, tyro.conf.Positional]
    """The binary, of a manylinux wheel of tritonclient up to 2.51."""
    library_path: str = ""
    """Where it finds the libraries that it links."""
    repository: Path = Path("model_repo")
    rows: int = 512
    concurrency: tuple[int, ...] = (1, 4, 16)
    repeats: int = 3


@dataclass(frozen=True)
class Found:
    """One client's figures for one concurrency."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    client_us: float
    """Processor time a request, of the client and of the server."""
    server_us: float


def command(name: str, config: Peers, triton: EmbeddedTriton, folder: Path, n: int) -> list[str]:
    """What each is started with."""
    if name == "blobzero":
        ours = [
            "--rows",
            config.rows,
            "--concurrency",
            n,
            "--window",
            WINDOW_S,
            "--stability",
            LENIENT,
            "--data",
            folder,
        ]
        return python_command("blobzero.cli", "loadtest", "--url", triton.url, *map(str, ours), "--json")
    if name == "tritonclient":
        script = "tests/integration/plain_client.py"
        return [sys.executable, "-P", script, triton.url, str(folder / "rows.npy"), str(n), str(3 * WINDOW_S + 1)]
    flags = ["-b", config.rows, "--concurrency-range", n, "-p", int(1e3 * WINDOW_S), "-s", int(100 * LENIENT)]
    return [
        str(config.perf_analyzer), "-m", MODEL_NAME, "-u", triton.url, "-i", "grpc", *map(str, flags),
        "--input-data", str(folder / "rows.json"), "-f", str(folder / "found.csv"),
    ]  # fmt: skip


def measure(name: str, config: Peers, triton: EmbeddedTriton, folder: Path, n: int) -> Found:
    """Run one client to its end, and look at the processors meanwhile."""
    environment = dict(os.environ)
    if name == "perf_analyzer" and config.library_path:
        environment["LD_LIBRARY_PATH"] = config.library_path
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
        process = psutil.Popen(command(name, config, triton, folder, n), stdout=out, stderr=err, env=environment)
        looks: list[tuple[float, float, float]] = []
        began = time.monotonic()
        while process.poll() is None:
            time.sleep(0.2)
            if time.monotonic() - began > 2.5:
                try:
                    family = [process, *process.children(recursive=True)]
                    client = sum(sum(one.cpu_times()[:2]) for one in family)
                except psutil.Error:
                    break
                cpu = triton.cpu_seconds()
                looks.append((time.monotonic(), client, cpu.server_s + cpu.backend_s))
        if process.wait() != 0:
            raise SystemExit(f"{name} failed: {(folder / 'err').read_text()} {(folder / 'out').read_text()}")
    if name == "perf_analyzer":
        (line,) = csv.DictReader((folder / "found.csv").read_text().splitlines())
        rate, p50, p99 = (float(line[key]) for key in ("Inferences/Second", "p50 latency", "p99 latency"))
        rate, p50, p99 = rate / config.rows, p50 / 1e3, p99 / 1e3
    else:
        found = json.loads((folder / "out").read_text())
        found = found["points"][0] if name == "blobzero" else found
        rate, p50, p99 = (found[key] for key in ("requests_per_s", "p50_ms", "p99_ms"))
    first, last = looks[0], looks[int(0.8 * len(looks))]  # their ends are not load
    client_us, server_us = ((last[i] - first[i]) / (last[0] - first[0]) / rate * 1e6 for i in (1, 2))
    return Found(rate, p50, p99, client_us, server_us)


def main(config: Peers) -> None:
    """Measure in turns, print the medians."""
    table = Table(title=f"{config.rows} rows a request, medians of {config.repeats} runs in turns")
    for heading in (
        "in flight",
        "client",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "client us",
        "server us",
        "rate x blobzero",
    ):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory(prefix="blobzero-peers-") as name:
        folder = Path(name)
        rows = search_positions(seed=1)[: max(config.rows, 1024)]
        np.save(folder / "rows.npy", rows[: config.rows])
        _write_shard(folder, rows)
        steps = [{INPUT_NAME: {"content": row.tolist(), "shape": [OBSERVATION_BYTES]}} for row in rows]
        (folder / "rows.json").write_text(json.dumps({"data": [steps]}))
        with served(config.repository, log_file=folder / "log") as (triton, _):
            for n in config.concurrency:
                found: dict[str, list[Found]] = {one: [] for one in NAMES}
                for _repeat in range(config.repeats):
                    for one in NAMES:
                        found[one].append(measure(one, config, triton, folder, n))
                        print(n, one, found[one][-1], file=sys.stderr, flush=True)
                _add(table, n, found)
    Console(width=120).print(table)


def _add(table: Table, n: int, found: dict[str, list[Found]]) -> None:
    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    for name, runs in found.items():
        ratios = [one.requests_per_s / ours.requests_per_s for one, ours in zip(runs, found["blobzero"], strict=True)]
        table.add_row(
            str(n), name, f"{median([one.requests_per_s for one in runs]):,.1f}",
            f"{median([one.p50_ms for one in runs]):.2f}", f"{median([one.p99_ms for one in runs]):.2f}",
            f"{median([one.client_us for one in runs]):.0f}", f"{median([one.server_us for one in runs]):.0f}",
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        )  # fmt: skip


def _write_shard(folder: Path, rows: NDArray[np.uint8]) -> None:
    """The rows as records, for ours to read."""
    write_shard(folder / "rows.parquet", replace(Records.empty(len(rows)), observation=rows), provenance={})


if __name__ == "__main__":
    main(tyro.cli(Peers))
