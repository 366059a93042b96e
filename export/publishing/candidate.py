# SPDX-License-Identifier: Apache-2.0
"""Candidates for publishing: model files that match the contract, and the outputs expected from the server.

```
checkpoint, network ── built here ── compared with PyTorch ──┐
file of `blobzero export` ── read ── its own outputs ────────┼── Candidate
earlier version, for a rollback ── read ── its own outputs ──┘
```
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from clients.precision import cpu_flags, int8_pays
from export.errors import ParityFailed
from export.parity import ParityReport
from export.precisions import FILE_NAMES, PRECISIONS, Format, Precision, Tolerance, Variant
from export.variants import Examples, VariantBuilder, evaluate, run_torch, variant_of
from training.checkpoint import CheckpointInfo
from training.network import BlobNet

Choice = Literal["auto"] | Precision


@dataclass(frozen=True)
class Candidate:
    """Candidate for a new version."""

    files: Mapping[str, Path]
    """Model files by their name in a version's folder."""
    source: str
    """Description of the network's origin."""
    why: str
    """Precision and the reason for it."""
    examples: Examples
    """Positions on which the server is checked, and the expected outputs."""
    tolerance: Tolerance
    parity: Mapping[str, ParityReport] = field(default_factory=dict)
    """Parity against PyTorch in float32, by variant; empty for a file exported earlier."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of a candidate that is exported here."""

    precision: Choice = "auto"
    """`auto` chooses float16 for a GPU, int8 if it is the fastest precision on this processor, else float32."""
    formats: Sequence[Format] = ("onnx",)
    records: Path | None = None
    """Folder of recorded positions; by default the newest run, or random rounds."""
    on_gpu: bool = False
    """Whether the server runs on a GPU, in the types stored in the file."""


def build_candidate(
    network: BlobNet, info: CheckpointInfo, folder: Path, *, source: str, options: ExportOptions
) -> Candidate:
    """Export a network to `folder` and compare every file with PyTorch.

    Raises:
        ParityFailed: if a file's outputs differ from PyTorch's; ExportError: if a variant does not exist, or the disk
            is full.
    """
    examples = Examples.of(partial(run_torch, network), options.records)
    builder = VariantBuilder(network, info, examples, threads=2, n_engines=1)
    files: dict[str, Path] = {}
    precision, why = _choose(options)
    for form in options.formats:
        path = folder / form / FILE_NAMES[form]
        first = Variant(form, precision if options.precision != "auto" or form == "onnx" else "float32")
        try:
            builder.make(first, path)
        except ParityFailed as error:
            if options.precision != "auto" or first.precision == "float32":
                raise
            precision, why = "float32", str(error).partition("; ")[0]
            builder.make(Variant(form, precision), path)
        files[path.name] = path
    parity = {str(variant): report for (variant, _), report in builder.reports.items()}
    return Candidate(files, source, f"{precision}: {why}", examples, PRECISIONS[precision].served, parity)


def read_candidate(files: Mapping[str, Path], *, source: str) -> Candidate:
    """Read files exported earlier; their outputs in this process are the outputs expected from the server.

    Raises:
        InvalidModel: if a file does not match the contract; ModelMismatch, UnsoundAnswer: if it cannot be evaluated.
    """
    variant, *_ = [variant_of(path) for path in files.values()]
    run = partial(evaluate, next(iter(files.values())), engine=variant.engines[0], threads=2)
    examples = Examples.of(run, None)
    return Candidate(files, source, f"{variant.precision}: as exported", examples, variant.spec.served)


def _choose(options: ExportOptions) -> tuple[Precision, str]:
    """Return the precision to try first, and the reason."""
    if options.precision != "auto":
        return options.precision, "as requested"
    if options.on_gpu:
        return "float16", "the server runs on a GPU"
    if int8_pays(cpu_flags()):
        return "int8", "this processor has int8 products in hardware, but not bfloat16"
    return "float32", "int8 is not faster on this processor"
