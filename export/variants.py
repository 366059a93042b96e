# SPDX-License-Identifier: Apache-2.0
"""Variants of a network: built as specified in precisions.py, compared with PyTorch, evaluated in their engines.

Axes: `n` rows, `F` bytes of an observation.
"""

import copy
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from clients import local
from clients.evaluator import evaluate as evaluate_batch
from clients.files import reason, write_whole
from clients.local import LocalEvaluator
from export.errors import ExportError, InvalidModel
from export.graph import export_onnx, properties_of, read_metadata
from export.half_precision import HalfNet
from export.parity import BATCH, Answers, ParityReport, compare
from export.positions import export_positions
from export.precisions import VARIANTS, Precision, Variant
from export.quantize import quantize
from export.torchscript import annotate_torchscript, export_torchscript, load_torchscript
from mcts_ext.contract import PRECISION_KEY
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
            export_torchscript(module, built, metadata=properties)
        elif variant.build.is_quantized:
            export_onnx(module, base, metadata=properties)
            quantize(base, built, rows=calibration)
        else:
            export_onnx(module, built, metadata=properties)
        read_metadata(built)
        _write(path, built.read_bytes())


@dataclass(frozen=True)
class Examples:
    """Positions and the network's outputs for them."""

    rows: NDArray[np.uint8]
    """`[n, F]`."""
    expected: Answers
    """Outputs of the network in float32."""
    calibration: NDArray[np.uint8]
    """`[m, F]` other positions for the calibration of int8."""
    source: str
    """Description of their origin."""

    @classmethod
    def of(cls, network: BlobNet, records: Path | None) -> Self:
        """Evaluate the positions of `export.positions.export_positions`."""
        rows, calibration, source = export_positions(records)
        return cls(rows, run_torch(network, rows), calibration, source)


def build_and_compare(
    network: BlobNet,
    variant: Variant,
    path: Path,
    *,
    examples: Examples,
    metadata: Mapping[str, str],
    engines: Sequence[str],
    threads: int,
    reports: dict[str, ParityReport],
    on_step: Callable[[str], None] = lambda text: None,
) -> None:
    """Build one variant, compare it with PyTorch in each of `engines`, and store the result in the file.

    Args:
        reports: filled with each engine's report, even if the variant is rejected.
        on_step: called with a description of the next step.

    Raises:
        ParityFailed: if the variant exceeds its tolerance. Others as `build` and `open_engine`.
    """
    on_step(f"building {variant}")
    build(network, variant, path, metadata=metadata, calibration=examples.calibration)
    for engine in engines:
        on_step(f"comparing {variant} in {engine}")
        reports[engine] = compare(examples.expected, evaluate(path, examples.rows, engine=engine, threads=threads))
    for engine, report in reports.items():
        report.require(variant.spec.tolerance, what=f"the {variant} file in {engine}")
    figures = json.dumps({engine: asdict(report) for engine, report in reports.items()})
    annotate(path, {PARITY_KEY: figures, "parity_positions": examples.source})


def annotate(path: Path, properties: Mapping[str, str]) -> None:
    """Add metadata to an exported file atomically.

    Raises:
        InvalidModel: if it is not an exported file. ExportError: if it could not be written.
    """
    if path.suffix == ".pt":
        annotate_torchscript(path, properties)
        return
    read_metadata(path)
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {**properties_of(model), **properties})
    _write(path, model.SerializeToString())


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
    pairs = [network(torch.from_numpy(rows[start : start + BATCH]).to(device)) for start in range(0, len(rows), BATCH)]
    return Answers(
        np.concatenate([policy.float().cpu().numpy() for policy, _ in pairs]),
        np.concatenate([value.float().cpu().numpy() for _, value in pairs]),
    )


def evaluate(path: Path, rows: NDArray[np.uint8], *, engine: str, threads: int = 1) -> Answers:
    """Evaluate `[n, F]` rows in this process; raises as `open_engine`."""
    run = open_engine(path, engine=engine, threads=threads)
    parts = [run(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
    return Answers(np.concatenate([part.policy for part in parts]), np.concatenate([part.value for part in parts]))


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


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise ExportError(
            f"expected to write {path}, got {reason(error)}; free space or choose another folder"
        ) from error
