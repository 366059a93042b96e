# SPDX-License-Identifier: Apache-2.0
"""Variants of a network: built as specified in precisions.py, compared with PyTorch, evaluated in their engines.

Axes: `n` rows, `F` bytes of an observation.
"""

import copy
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray

from clients import local
from clients.evaluator import evaluate as evaluate_batch
from clients.local import LocalEvaluator
from export.errors import ExportError, InvalidModel
from export.graph import annotate, export_onnx, metadata_of, read_metadata, write_model
from export.half_precision import HalfNet
from export.parity import BATCH, Answers, ParityReport, compare
from export.positions import export_positions
from export.precisions import VARIANTS, Precision, Variant
from export.quantize import quantize
from export.torchscript import load_torchscript, torchscript_bytes, trace
from mcts_ext.contract import PRECISION_KEY
from training.checkpoint import CheckpointInfo
from training.network import BlobNet

Run = Callable[[NDArray[np.uint8]], Answers]

FORMAT_KEY: Final = "format"
"""Metadata key of exported files, like `PRECISION_KEY`."""
PARITY_KEY: Final = "parity"
"""Metadata key: JSON with the parity against PyTorch in float32 at export, by engine."""


def build(
    network: BlobNet, variant: Variant, path: Path, *, metadata: Mapping[str, str], calibration: NDArray[np.uint8]
) -> None:
    """Build one variant of `network`, check it against the contract, and write it to `path` atomically.

    Args:
        network: network in float32.
        variant: one of `VARIANTS`.
        path: file to write.
        metadata: metadata to store in addition to format and precision.
        calibration: `[n, F]` positions for the calibration of int8.

    Raises:
        ExportError: if there is no such variant, or the disk is full. InvalidModel: if a weight overflows.
    """
    if variant not in VARIANTS:
        known = ", ".join(map(str, VARIANTS))
        raise ExportError(f"expected a variant of {known}, got {variant}; choose another format or precision")
    properties = {**metadata, FORMAT_KEY: variant.format, PRECISION_KEY: variant.precision}
    with tempfile.TemporaryDirectory(prefix="blobzero-build-") as folder:
        built, base = Path(folder) / variant.file_name, Path(folder) / "float32.onnx"
        weights = variant.build.weights
        module = copy.deepcopy(network).cpu() if weights == "float32" else HalfNet(network, getattr(torch, weights))
        if variant.format == "torchscript":
            write_model(built, torchscript_bytes(trace(module), properties))
        elif variant.build.is_quantized:
            export_onnx(module, base, metadata=properties)
            quantize(base, built, rows=calibration)
        else:
            export_onnx(module, built, metadata=properties)
        read_metadata(built)
        write_model(path, built.read_bytes())


@dataclass(frozen=True)
class Examples:
    """Positions and the outputs expected for them."""

    rows: NDArray[np.uint8]
    """`[n, F]`."""
    expected: Answers
    """Outputs of the network in float32, or of a file exported earlier."""
    calibration: NDArray[np.uint8]
    """`[m, F]` other positions for the calibration of int8."""
    source: str
    """Description of their origin."""

    @classmethod
    def of(cls, run: Run, records: Path | None) -> Self:
        """Evaluate the positions of `export.positions.export_positions` with `run`."""
        rows, calibration, source = export_positions(records)
        return cls(rows, run(rows), calibration, source)


@dataclass(frozen=True)
class VariantBuilder:
    """Builds variants of one network and compares each with PyTorch."""

    network: BlobNet
    info: CheckpointInfo
    examples: Examples
    threads: int
    """Number of compute threads of an engine."""
    n_engines: int | None = None
    """Number of a variant's engines in which it is compared; None for all."""
    on_step: Callable[[str], None] = lambda text: None
    """Called with a description of the next step."""
    reports: dict[tuple[Variant, str], ParityReport] = field(default_factory=dict)
    """Parity by variant and engine so far, including rejected variants."""

    def make(self, variant: Variant, path: Path) -> None:
        """Build one variant, compare it in its engines, and store the result in the file.

        Raises:
            ParityFailed: if the variant exceeds its tolerance. Others as `build` and `open_engine`.
        """
        self.on_step(f"building {variant}")
        examples = self.examples
        build(self.network, variant, path, metadata=metadata_of(self.info), calibration=examples.calibration)
        reports: dict[str, ParityReport] = {}
        for engine in variant.engines[: self.n_engines]:
            self.on_step(f"comparing {variant} in {engine}")
            got = evaluate(path, examples.rows, engine=engine, threads=self.threads)
            reports[engine] = self.reports[variant, engine] = compare(examples.expected, got)
        for engine, report in reports.items():
            report.require(variant.spec.tolerance, what=f"the {variant} file in {engine}")
        figures = json.dumps({engine: asdict(report) for engine, report in reports.items()})
        annotate(path, {PARITY_KEY: figures, "parity_positions": examples.source})


def variant_of(path: Path) -> Variant:
    """Return the variant of an exported file.

    Raises:
        InvalidModel: if it does not match the contract, or its precision is unknown.
    """
    precision = read_metadata(path).get(PRECISION_KEY, "float32")
    variant = Variant("torchscript" if path.suffix == ".pt" else "onnx", cast(Precision, precision))
    if variant not in VARIANTS:
        known = ", ".join(map(str, VARIANTS))
        raise InvalidModel(f"expected a variant of {known}, got {variant} in {path}; export it again")
    return variant


@torch.no_grad()
def run_torch(network: BlobNet, rows: NDArray[np.uint8]) -> Answers:
    """Evaluate `[n, F]` rows with PyTorch in float32 on the network's device: the reference of all parity checks."""
    device = next(network.parameters()).device
    pairs = [network(torch.from_numpy(part).to(device)) for part in _batches(rows)]
    return Answers.of_batches((policy.float().cpu().numpy(), value.float().cpu().numpy()) for policy, value in pairs)


def evaluate(path: Path, rows: NDArray[np.uint8], *, engine: str, threads: int = 1) -> Answers:
    """Evaluate `[n, F]` rows in this process; raises as `open_engine`."""
    return Answers.of_batches(map(open_engine(path, engine=engine, threads=threads), _batches(rows)))


def _batches(rows: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def open_engine(path: Path, *, engine: str, threads: int) -> Run:
    """Load a file into an engine in this process; return a function that evaluates `[b, F]` rows.

    Args:
        path: exported file.
        engine: an engine of the file's variant.
        threads: number of compute threads.

    Raises:
        InvalidModel: if the file does not match the contract. ExportError: if the engine does not serve the variant.
        ModelMismatch: if the engine cannot load the file.
    """
    variant = variant_of(path)
    if engine not in variant.engines:
        raise ExportError(f"expected {' or '.join(variant.engines)} for {variant}, got {engine}; choose another engine")
    if engine == "pytorch":
        return _open_torchscript(path, threads)
    precision = variant.spec.openvino if engine == "openvino" else "auto"
    evaluator = LocalEvaluator(path, engine=cast(local.Engine, engine), precision=precision, threads=threads)

    def run(rows: NDArray[np.uint8]) -> Answers:
        evaluation = evaluate_batch(evaluator, rows)
        return Answers(evaluation.logits, evaluation.values)

    return run


def _open_torchscript(path: Path, threads: int) -> Run:
    module, _ = load_torchscript(path)

    def run(rows: NDArray[np.uint8]) -> Answers:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)  # a global setting
        try:
            with torch.inference_mode():
                policy, value = module(torch.from_numpy(rows))
        finally:
            torch.set_num_threads(before)
        return Answers(policy.numpy(), value.numpy())

    return run
