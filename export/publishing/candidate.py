# SPDX-License-Identifier: Apache-2.0
"""A candidate for publishing: model files that are known to fit the contract, and the answers a server must give.

```
checkpoint, network ── built here ── compared with PyTorch ──┐
file of `blobzero export` ── read ── its own answers ────────┼── Candidate
earlier version, for a rollback ── the same ─────────────────┘
```
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clients.precision import cpu_flags, int8_pays
from export.errors import ParityFailed
from export.graph import metadata_of
from export.parity import Answers, ParityReport
from export.positions import export_positions
from export.precisions import PRECISIONS, Format, Precision, Tolerance, Variant
from export.variants import Examples, attempt, evaluate, variant_of
from training.checkpoint import CheckpointInfo
from training.network import BlobNet

Choice = Literal["auto"] | Precision


@dataclass(frozen=True)
class Candidate:
    """What may become a version."""

    files: Mapping[str, Path]
    """By the name that a version's folder gives it."""
    source: str
    """Where the network comes from, in words."""
    why: str
    """Its precision, and the reason for it."""
    rows: NDArray[np.uint8]
    """`[n, F]` positions to ask a server about."""
    expected: Answers
    tolerance: Tolerance
    parity: Mapping[str, ParityReport] = field(default_factory=dict)
    """Against PyTorch in float32, by variant; empty for a file that was exported earlier."""
    positions: str = ""
    """Where `rows` come from, in words."""


@dataclass(frozen=True)
class Wish:
    """What is asked of a candidate that is built here."""

    precision: Choice = "auto"
    """`auto` takes float16 for a GPU, int8 where this processor multiplies it in hardware and does not do as well in
    bfloat16."""
    formats: Sequence[Format] = ("onnx",)
    records: Path | None = None
    """Folder of recorded positions; none: the newest run there is, or positions played at random."""
    on_gpu: bool = False
    """Whether the server computes on a GPU: in the types that the file holds."""


def build_candidate(network: BlobNet, info: CheckpointInfo, folder: Path, *, source: str, wish: Wish) -> Candidate:
    """Export a network into `folder` and compare every file with PyTorch.

    Raises:
        ParityFailed: a file answers otherwise than PyTorch; ExportError: a variant that is not built, or a full disk.
    """
    examples = Examples.of(network, wish.records)
    metadata = metadata_of(info)
    parity: dict[str, ParityReport] = {}

    def make(variant: Variant) -> Path:
        path, engines = folder / variant.format / variant.file_name, variant.engines[:1]
        found: dict[str, ParityReport] = {}
        try:
            attempt(
                network, variant, path, examples=examples, metadata=metadata, engines=engines, threads=2, found=found
            )
        finally:
            parity.update({str(variant): report for report in found.values()})
        return path

    files: dict[str, Path] = {}
    precision, why = _choose(wish)
    for form in wish.formats:
        asked: Precision = precision if wish.precision != "auto" or form == "onnx" else "float32"
        try:
            path = make(Variant(form, asked))
        except ParityFailed as error:
            if wish.precision != "auto" or asked == "float32":
                raise
            precision, why = "float32", str(error).partition("; ")[0]
            path = make(Variant(form, precision))
        files[path.name] = path
    tolerance = PRECISIONS[precision].served
    return Candidate(
        files, source, f"{precision}: {why}", examples.rows, examples.expected, tolerance, parity, examples.source
    )


def read_candidate(files: Mapping[str, Path], *, source: str) -> Candidate:
    """Take files that were exported earlier; what they answer in this process is what a server must answer.

    Raises:
        InvalidModel: a file that does not fit the contract; ModelMismatch, UnsoundAnswer: one that does not answer.
    """
    rows, _, positions = export_positions(None)
    variants = [variant_of(path) for path in files.values()]
    expected = evaluate(next(iter(files.values())), rows, engine=variants[0].engines[0], threads=2)
    tolerance = variants[0].row.served
    why = f"{variants[0].precision}: as it was exported"
    return Candidate(files, source, why, rows, expected, tolerance, positions=positions)


def _choose(wish: Wish) -> tuple[Precision, str]:
    """The precision to try first, and why."""
    if wish.precision != "auto":
        return wish.precision, "asked for"
    if wish.on_gpu:
        return "float16", "the server computes on a GPU"
    if int8_pays(cpu_flags()):
        return "int8", "this processor multiplies int8 in hardware, and not bfloat16"
    return "float32", "int8 does not pay on this processor"
