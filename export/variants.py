# SPDX-License-Identifier: Apache-2.0
"""Variants of a network: each built as its row of precisions.py says, compared with PyTorch, evaluated in its engines.

Axes: `n` rows, `F` = 96 bytes.
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
from clients.evaluator import evaluate as ask
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
"""A property of exported files, beside `PRECISION_KEY`."""
PARITY_KEY: Final = "parity"
"""Another: JSON, by engine, how far its answers were from PyTorch's in float32 when it was exported."""


def build(
    network: BlobNet, variant: Variant, path: Path, *, metadata: Mapping[str, str], calibration: NDArray[np.uint8]
) -> None:
    """Write one variant of `network` to `path`, which is whole and fits the contract, or untouched.

    Args:
        network: in float32.
        variant: one of `VARIANTS`.
        path: where to.
        metadata: properties that the file is to carry, beside its format and precision.
        calibration: `[n, F]` positions that fix the ranges of int8.

    Raises:
        ExportError: no such variant, or no room. InvalidModel: a weight that the precision can't hold.
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
    """Positions, and what the network answers to them."""

    rows: NDArray[np.uint8]
    """`[n, F]`."""
    expected: Answers
    """Of the network in float32."""
    calibration: NDArray[np.uint8]
    """`[m, F]` others, which fix the ranges of int8."""
    source: str
    """Where they come from, in words."""

    @classmethod
    def of(cls, network: BlobNet, records: Path | None) -> Self:
        """Those of `export.positions.export_positions`."""
        rows, calibration, source = export_positions(records)
        return cls(rows, run_torch(network, rows), calibration, source)


def attempt(
    network: BlobNet,
    variant: Variant,
    path: Path,
    *,
    examples: Examples,
    metadata: Mapping[str, str],
    engines: Sequence[str],
    threads: int,
    found: dict[str, ParityReport],
    on_step: Callable[[str], None] = lambda text: None,
) -> None:
    """Build one variant and compare it with PyTorch in each of `engines`; the file says how near it came.

    Args:
        found: gets each engine's report, also where the variant is refused.
        on_step: told, in a few words, what comes next.

    Raises:
        ParityFailed: beyond the variant's tolerance. Others as `build` and `open_engine`.
    """
    on_step(f"building {variant}")
    build(network, variant, path, metadata=metadata, calibration=examples.calibration)
    for engine in engines:
        on_step(f"comparing {variant} in {engine}")
        found[engine] = compare(examples.expected, evaluate(path, examples.rows, engine=engine, threads=threads))
    for engine, report in found.items():
        report.require(variant.row.tolerance, what=f"the {variant} file in {engine}")
    figures = json.dumps({engine: asdict(report) for engine, report in found.items()})
    annotate(path, {PARITY_KEY: figures, "parity_positions": examples.source})


def annotate(path: Path, properties: Mapping[str, str]) -> None:
    """Add properties to an exported file, which is whole or as it was.

    Raises:
        InvalidModel: no such file. ExportError: it could not be written.
    """
    if path.suffix == ".pt":
        annotate_torchscript(path, properties)
        return
    read_metadata(path)
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {**properties_of(model), **properties})
    _write(path, model.SerializeToString())


def variant_of(path: Path) -> Variant:
    """What an exported file is.

    Raises:
        InvalidModel: it does not fit the contract, or names a precision that there is not.
    """
    precision = read_metadata(path).get(PRECISION_KEY, "float32")
    found = Variant("torchscript" if path.suffix == ".pt" else "onnx", cast(Precision, precision))
    if found not in VARIANTS:
        known = ", ".join(map(str, VARIANTS))
        raise InvalidModel(f"expected a variant of {known}, got {found} in {path}; export it again")
    return found


@torch.no_grad()
def run_torch(network: BlobNet, rows: NDArray[np.uint8]) -> Answers:
    """Evaluate `[n, F]` rows with PyTorch, in float32, where the network is: what every variant is compared with."""
    device = next(network.parameters()).device
    pairs = [network(torch.from_numpy(rows[start : start + BATCH]).to(device)) for start in range(0, len(rows), BATCH)]
    return Answers(
        np.concatenate([policy.float().cpu().numpy() for policy, _ in pairs]),
        np.concatenate([value.float().cpu().numpy() for _, value in pairs]),
    )


def evaluate(path: Path, rows: NDArray[np.uint8], *, engine: str, threads: int = 1) -> Answers:
    """Evaluate `[n, F]` rows in this process; errors as those of `open_engine`."""
    run = open_engine(path, engine=engine, threads=threads)
    found = [run(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
    return Answers(np.concatenate([part.policy for part in found]), np.concatenate([part.value for part in found]))


def open_engine(path: Path, *, engine: str, threads: int) -> Run:
    """Load a file into an engine of this process; the result evaluates `[b, F]` rows.

    Args:
        path: an exported file.
        engine: one that serves the file's variant.
        threads: that compute.

    Raises:
        InvalidModel: a file that does not fit the contract. ExportError: an engine that does not serve it.
        ModelMismatch: an engine that does not load it.
    """
    variant = variant_of(path)
    if engine not in variant.engines:
        raise ExportError(f"expected {' or '.join(variant.engines)} for {variant}, got {engine}; choose another engine")
    if engine == "pytorch":
        return _open_torchscript(path, threads)
    precision = variant.row.openvino if engine == "openvino" else "auto"
    evaluator = LocalEvaluator(path, engine=cast(local.Engine, engine), precision=precision, threads=threads)

    def run(rows: NDArray[np.uint8]) -> Answers:
        found = ask(evaluator, rows)
        return Answers(found.logits, found.values)

    return run


def _open_torchscript(path: Path, threads: int) -> Run:
    module, _ = load_torchscript(path)

    def run(rows: NDArray[np.uint8]) -> Answers:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)  # the process has one number for all
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
