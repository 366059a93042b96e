# SPDX-License-Identifier: Apache-2.0
"""A checkpoint in every variant asked for: built, compared with PyTorch in each engine, timed, reported.

```
<out>/<format>-<precision>/model.onnx | model.pt      whole, within tolerance in every engine that serves it
<out>/report.json                                     all figures, and why others were refused
```
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clients.files import reason, write_json
from clients.lock import sole_writer
from clients.provenance import git, machine
from export.errors import ExportError
from export.graph import metadata_of
from export.parity import ParityReport
from export.precisions import VARIANTS, Format, Precision, Variant
from export.timing import BATCH, REPEATS, Speed, time_engines
from export.variants import Examples, attempt, open_engine
from mcts_ext.errors import BlobError
from training.checkpoint import CheckpointInfo, load_checkpoint

REPORT_FILE: Final = "report.json"
NEAR: Final = 0.95
"""Of two that are as fast to within 5%, which is noise, the one nearer to PyTorch counts as the faster."""
_PACKAGES: Final = {"openvino": "openvino", "onnxruntime": "onnxruntime", "pytorch": "torch"}


@dataclass(frozen=True)
class Served:
    """One variant as one engine serves it."""

    variant: Variant
    engine: str
    parity: ParityReport
    speed: Speed | None = None
    """None where the variant was refused."""
    is_fastest: bool = False
    """Of this engine's variants within tolerance."""


@dataclass(frozen=True)
class ExportReport:
    """What was built, and what it is worth."""

    checkpoint: Path
    info: CheckpointInfo
    out: Path
    files: Mapping[Variant, Path]
    """Those within tolerance."""
    refused: Mapping[Variant, str]
    """The others, and why, in one line."""
    served: Sequence[Served]
    positions: str
    """Where the positions come from."""
    threads: int
    exported_at: str

    @property
    def fastest(self) -> Served | None:
        """The fastest within tolerance, whatever the engine."""
        return _fastest([one for one in self.served if one.is_fastest])

    def to_json(self) -> dict[str, Any]:
        """For programs."""
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
                one.precision: {
                    name: limit if np.isfinite(limit) else None  # JSON has no infinity
                    for name, limit in asdict(one.row.tolerance).items()
                }
                for one in (*self.files, *self.refused)
            },
            "files": {str(variant): str(path) for variant, path in self.files.items()},
            "refused": {str(variant): why for variant, why in self.refused.items()},
            "served": [asdict(one) for one in self.served],
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
    """Export a checkpoint; a variant beyond its tolerance in any engine is refused, and its file not kept.

    Args:
        checkpoint: of `training.checkpoint`.
        out: folder for files and report; variants that are not asked for stay as they are there.
        formats, precisions: which of `VARIANTS` to build.
        records: as `export.positions.recorded_rows` takes it.
        on_step: told, in a few words, what comes next.

    Raises:
        BlobError: a subclass says that the checkpoint or the records can't be read, that there is no such variant, or
            that `out` can't be written.
    """
    asked = [variant for variant in VARIANTS if variant.format in formats and variant.precision in precisions]
    if missing := set(precisions) - {variant.precision for variant in asked}:
        raise ExportError(
            f"expected precisions that {' or '.join(formats)} has, got {', '.join(sorted(missing))}; "
            f"choose of {', '.join(map(str, VARIANTS))}"
        )
    network, info = load_checkpoint(checkpoint)
    on_step("choosing positions")
    examples = Examples.of(network, records)
    threads = len(os.sched_getaffinity(0))
    files, refused = {}, {}
    served: list[Served] = []
    try:
        with sole_writer(out), tempfile.TemporaryDirectory(prefix=".incoming-", dir=out) as aside:
            for variant in asked:
                final = out / str(variant).replace(" ", "-") / variant.file_name
                built = Path(aside) / final.parent.name / final.name
                reports: dict[str, ParityReport] = {}
                try:
                    attempt(
                        network, variant, built, examples=examples, metadata=metadata_of(info),
                        engines=variant.engines, threads=threads, found=reports, on_step=on_step,
                    )  # fmt: skip
                except BlobError as error:
                    refused[variant] = str(error).partition("; ")[0]
                    final.unlink(missing_ok=True)  # that of an earlier export would pass for this one's
                else:
                    final.parent.mkdir(exist_ok=True)
                    built.replace(final)
                    files[variant] = final
                served += [Served(variant, engine, parity) for engine, parity in reports.items()]
            on_step("timing all in turns")
            timed = _timed(served, files, examples.rows, threads)
            now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            report = ExportReport(checkpoint, info, out, files, refused, timed, examples.source, threads, now)
            write_json(out / REPORT_FILE, report.to_json())
    except OSError as error:
        raise ExportError(f"expected a folder to write at {out}, got {reason(error)}; choose another --out") from error
    return report


def _timed(
    served: Sequence[Served], files: Mapping[Variant, Path], rows: NDArray[np.uint8], threads: int
) -> list[Served]:
    """With the speed of those that were not refused, and each engine's fastest marked."""
    engines = {
        (one.variant, one.engine): open_engine(files[one.variant], engine=one.engine, threads=threads)
        for one in served
        if one.variant in files
    }
    speeds = time_engines(engines, rows, base=lambda key: (Variant(key[0].format, "float32"), key[1]))
    timed = [replace(one, speed=speeds.get((one.variant, one.engine))) for one in served]
    best = [_fastest([one for one in timed if one.engine == engine]) for engine in _PACKAGES]
    return [replace(one, is_fastest=any(one is other for other in best)) for one in timed]


def _fastest(served: Sequence[Served]) -> Served | None:
    """By median; among those within noise of it, the nearest to PyTorch."""
    rates = {i: one.speed.median for i, one in enumerate(served) if one.speed is not None}
    near = [served[i] for i, rate in rates.items() if rate >= NEAR * max(rates.values())]
    return min(near, key=lambda one: one.parity.mean_policy_kl, default=None)
