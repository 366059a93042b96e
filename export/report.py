# SPDX-License-Identifier: Apache-2.0
"""Export a checkpoint in every variant, and measure each: how near to PyTorch, how fast on this machine."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clients.checkout import git
from clients.report import machine, write_json
from export.errors import ExportError
from export.graph import metadata_of, read_metadata
from export.parity import ParityReport, compare, run_torch
from export.positions import export_positions
from export.timing import REPEATS, Speed, time_engines
from export.variants import ENGINES, TOLERANCES, Format, Precision, Variant, annotate, build, evaluate, open_engine
from mcts_ext.errors import BlobError
from training.checkpoint import CheckpointInfo, load_checkpoint


@dataclass(frozen=True)
class Served:
    """One variant as one backend would serve it."""

    variant: Variant
    engine: str
    path: Path
    parity: ParityReport | None
    """None where the engine does not take it on this machine."""
    speed: Speed | None
    """None where it was refused."""
    refused: str
    """Why it may not be published; empty where it may."""

    @property
    def key(self) -> tuple[str, str]:
        return str(self.variant), self.engine


@dataclass(frozen=True)
class ExportReport:
    """What was built, and what each is worth."""

    out: Path
    info: CheckpointInfo
    positions: str
    threads: int
    served: Sequence[Served]

    @property
    def fastest(self) -> Served | None:
        """The fastest of those within tolerance."""
        allowed = [one for one in self.served if one.speed is not None and not one.refused]
        return max(allowed, key=lambda one: one.speed.median if one.speed else 0.0, default=None)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        fastest = self.fastest
        return {
            "checkpoint": {**asdict(self.info), "preset": self.info.preset},
            "machine": machine(),
            "git_commit": git("rev-parse", "HEAD"),
            "measured_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "positions": self.positions,
            "threads": self.threads,
            "repeats": REPEATS,
            "fastest_within_tolerance": None if fastest is None else list(fastest.key),
            "variants": [
                {
                    "format": one.variant.format,
                    "precision": one.variant.precision,
                    "engine": one.engine,
                    "file": str(one.path) if one.path.exists() else None,
                    "bytes": one.path.stat().st_size if one.path.exists() else None,
                    "parity": None if one.parity is None else asdict(one.parity),
                    "rows_per_s": None if one.speed is None else asdict(one.speed),
                    "refused": one.refused or None,
                }
                for one in self.served
            ],
        }


def export_variants(
    checkpoint: Path,
    out: Path,
    *,
    formats: Sequence[Format],
    precisions: Sequence[Precision],
    records: Path | None = None,
    on_step: Callable[[str], None] = lambda text: None,
) -> ExportReport:
    """Build each variant as `<out>/<format>-<precision>/<file>`, and write `<out>/report.json`.

    A variant beyond its tolerance is reported with the reason, and its file is not kept.

    Raises:
        BlobError: the checkpoint can't be read, no variant is built of what was asked, or there is no room.
    """
    network, info = load_checkpoint(checkpoint)
    variants = [variant for variant in ENGINES if variant.format in formats and variant.precision in precisions]
    if not variants:
        raise ExportError(f"expected one of {', '.join(map(str, ENGINES))}, got {formats} in {precisions}")
    rows, calibration, positions = export_positions(records)
    expected = run_torch(network, rows)
    threads = len(os.sched_getaffinity(0))
    found: list[Served] = []
    for variant in variants:
        on_step(f"building {variant}")
        path = out / str(variant).replace(" ", "-") / variant.file_name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            build(network, variant, path, metadata=metadata_of(info), calibration=calibration)
        except OSError as error:
            raise ExportError(f"expected to write {out}, got {error}; free space or choose another --out") from error
        read_metadata(path)
        reports: dict[str, ParityReport] = {}
        for engine in ENGINES[variant]:
            on_step(f"comparing {variant} in {engine}")
            refused, parity = "", None
            try:
                parity = compare(expected, evaluate(path, rows, engine=engine, threads=threads))
                reports[engine] = parity
                parity.require(TOLERANCES[variant.precision], what=f"{variant} in {engine}")
            except BlobError as error:
                refused = str(error).partition("; ")[0]
            found.append(Served(variant, engine, path, parity, None, refused))
        if all(one.refused for one in found if one.variant == variant):
            path.unlink()
            path.parent.rmdir()
        else:
            annotate(path, {"parity": json.dumps(asdict(reports[ENGINES[variant][0]]))})
    on_step("timing all of them in turns")
    report = ExportReport(out, info, positions, threads, _timed(found, rows, threads))
    write_json(out / "report.json", report.to_json())
    return report


def _timed(found: Sequence[Served], rows: Any, threads: int) -> list[Served]:
    """With the speed of each that may be published, beside float32 in the same engine."""
    engines: Mapping[tuple[str, str], Any] = {
        one.key: open_engine(one.path, engine=one.engine, threads=threads) for one in found if not one.refused
    }

    def base(key: tuple[str, str]) -> tuple[str, str]:
        float32 = (f"{key[0].split()[0]} float32", key[1])
        return float32 if float32 in engines else key

    speeds = time_engines(engines, rows, base=base)
    return [Served(**{**vars(one), "speed": speeds.get(one.key)}) for one in found]
