# SPDX-License-Identifier: Apache-2.0
"""Export of a checkpoint in several variants: built, compared with PyTorch in each engine, timed, reported.

```
<out>/<format>-<precision>/model.onnx | model.pt      within tolerance in every engine that serves it
<out>/report.json                                     all measurements, and why variants were rejected
```
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clients.files import reason, write_json
from clients.lock import sole_writer
from clients.provenance import git, machine
from export.errors import ExportError
from export.parity import ParityReport
from export.precisions import VARIANTS, Format, Precision, Variant
from export.timing import BATCH, REPEATS, Speed, time_engines
from export.variants import Examples, VariantBuilder, open_engine, run_torch
from mcts_ext.errors import BlobError
from training.checkpoint import CheckpointInfo, load_checkpoint

REPORT_FILE: Final = "report.json"
NEAR: Final = 0.95
"""Speeds within 5% are a tie (noise), which the better parity with PyTorch breaks."""
_PACKAGES: Final = {"openvino": "openvino", "onnxruntime": "onnxruntime", "pytorch": "torch"}


@dataclass(frozen=True)
class EngineResult:
    """Parity and speed of one variant in one engine."""

    variant: Variant
    engine: str
    parity: ParityReport
    speed: Speed | None = None
    """None if the variant was rejected."""
    is_fastest: bool = False
    """Whether it is the fastest variant within tolerance in this engine."""


@dataclass(frozen=True)
class ExportReport:
    """Result of an export."""

    checkpoint: Path
    info: CheckpointInfo
    out: Path
    files: Mapping[Variant, Path]
    """Files of the variants within tolerance."""
    refused: Mapping[Variant, str]
    """Rejected variants and the reason in one line."""
    served: Sequence[EngineResult]
    positions: str
    """Description of the positions."""
    threads: int
    exported_at: str

    @property
    def fastest(self) -> EngineResult | None:
        """Fastest variant within tolerance in any engine."""
        return _fastest([result for result in self.served if result.is_fastest])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "checkpoint": {"path": str(self.checkpoint), **asdict(self.info)},
            "machine": machine(),
            "engines": {engine: version(package) for engine, package in _PACKAGES.items()},
            "git_commit": git("rev-parse", "HEAD"),
            "exported_at": self.exported_at,
            "positions": self.positions,
            "threads": self.threads,
            "batch": BATCH,
            "repeats": REPEATS,
            "tolerances": {
                variant.precision: {
                    name: limit if np.isfinite(limit) else None  # JSON has no infinity
                    for name, limit in asdict(variant.spec.tolerance).items()
                }
                for variant in (*self.files, *self.refused)
            },
            "files": {str(variant): str(path) for variant, path in self.files.items()},
            "refused": {str(variant): why for variant, why in self.refused.items()},
            "served": [asdict(result) for result in self.served],
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
    """Export a checkpoint; a variant that exceeds its tolerance in any engine is rejected and its file not kept.

    Args:
        checkpoint: file of `training.checkpoint`.
        out: folder for files and report; files of other variants in it are kept.
        formats, precisions: which of `VARIANTS` to build.
        records: see `export.positions.recorded_rows`.
        on_step: called with a description of the next step.

    Raises:
        BlobError: if the checkpoint or the records cannot be read, a variant does not exist, or `out` is not writable.
    """
    variants = [variant for variant in VARIANTS if variant.format in formats and variant.precision in precisions]
    if missing := set(precisions) - {variant.precision for variant in variants}:
        raise ExportError(
            f"expected precisions available in {' or '.join(formats)}, got {', '.join(sorted(missing))}; "
            f"choose from {', '.join(map(str, VARIANTS))}"
        )
    network, info = load_checkpoint(checkpoint)
    on_step("choosing positions")
    examples = Examples.of(partial(run_torch, network), records)
    threads = len(os.sched_getaffinity(0))
    builder = VariantBuilder(network, info, examples, threads, on_step=on_step)
    files, refused = {}, {}
    try:
        with sole_writer(out), tempfile.TemporaryDirectory(prefix=".incoming-", dir=out) as temporary:
            for variant in variants:
                final = out / str(variant).replace(" ", "-") / variant.file_name
                built = Path(temporary) / final.parent.name / final.name
                try:
                    builder.make(variant, built)
                except BlobError as error:
                    refused[variant] = str(error).partition("; ")[0]
                    final.unlink(missing_ok=True)  # a file of an earlier export must not be mistaken for this one's
                else:
                    final.parent.mkdir(exist_ok=True)
                    built.replace(final)
                    files[variant] = final
            on_step("timing all variants")
            timed = _timed(builder.reports, files, examples.rows, threads)
            now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            report = ExportReport(checkpoint, info, out, files, refused, timed, examples.source, threads, now)
            write_json(out / REPORT_FILE, report.to_json())
    except OSError as error:
        raise ExportError(f"expected a folder to write at {out}, got {reason(error)}; choose another --out") from error
    return report


def _timed(
    reports: Mapping[tuple[Variant, str], ParityReport],
    files: Mapping[Variant, Path],
    rows: NDArray[np.uint8],
    threads: int,
) -> list[EngineResult]:
    """Add the speed of the variants within tolerance, and mark the fastest of each engine."""
    engines = {
        (variant, engine): open_engine(files[variant], engine=engine, threads=threads)
        for variant, engine in reports
        if variant in files
    }
    speeds = time_engines(engines, rows, base=lambda key: (Variant(key[0].format, "float32"), key[1]))
    timed = [EngineResult(*key, parity, speeds.get(key)) for key, parity in reports.items()]
    best = [_fastest([result for result in timed if result.engine == engine]) for engine in _PACKAGES]
    return [replace(result, is_fastest=any(result is fastest for fastest in best)) for result in timed]


def _fastest(served: Sequence[EngineResult]) -> EngineResult | None:
    """Return the result with the highest median speed; a tie (`NEAR`) goes to the best parity with PyTorch."""
    rates = {i: result.speed.median for i, result in enumerate(served) if result.speed is not None}
    near = [served[i] for i, rate in rates.items() if rate >= NEAR * max(rates.values())]
    return min(near, key=lambda result: result.parity.mean_policy_kl, default=None)
