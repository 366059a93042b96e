# SPDX-License-Identifier: Apache-2.0
"""The variants of an exported network: formats and precisions, how each is built, and which engine computes it.

| | float32 | float16 | bfloat16 | int8 |
| --- | --- | --- | --- | --- |
| `onnx` | yes | halves.py | float32, and the engine rounds | quantize.py |
| `torchscript` | yes | halves.py | halves.py | no: torchscript.py |

Axes: `n` rows, `F` = 96 bytes.
"""

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from clients import local
from clients.evaluator import evaluate as ask
from clients.local import LocalEvaluator
from export.errors import ExportError, InvalidModel
from export.graph import export_onnx, properties_of, read_metadata
from export.halves import HalfNet
from export.parity import BATCH, BFLOAT16, FLOAT16, FLOAT32, INT8, Answers, Tolerance
from export.quantize import quantize
from export.repository import FILE_NAMES, Format
from export.torchscript import annotate_torchscript, export_torchscript, load_torchscript
from mcts_ext.contract import PRECISION_KEY
from training.files import write_whole
from training.network import BlobNet

Precision = Literal["float32", "float16", "bfloat16", "int8"]
Run = Callable[[NDArray[np.uint8]], Answers]

FORMAT_KEY: Final = "format"
"""A property of exported files, beside `PRECISION_KEY`."""
PARITY_KEY: Final = "parity"
"""Another: JSON, by engine, how far its answers were from PyTorch's in float32 when it was exported."""


@dataclass(frozen=True)
class Variant:
    """A format and a precision."""

    format: Format
    precision: Precision

    def __str__(self) -> str:
        return f"{self.format} {self.precision}"

    @property
    def file_name(self) -> str:
        """Of the exported file."""
        return FILE_NAMES[self.format]


ENGINES: Final[Mapping[Variant, tuple[str, ...]]] = {
    Variant("onnx", "float32"): ("openvino", "onnxruntime"),
    Variant("onnx", "float16"): ("openvino", "onnxruntime"),
    # ONNX Runtime's CPU provider has no bfloat16 products ("NOT_IMPLEMENTED" when it loads them), so the file is
    # float32 with a property that asks for them, and OpenVINO rounds.
    Variant("onnx", "bfloat16"): ("openvino",),
    Variant("onnx", "int8"): ("openvino", "onnxruntime"),
    Variant("torchscript", "float32"): ("pytorch",),
    Variant("torchscript", "float16"): ("pytorch",),
    Variant("torchscript", "bfloat16"): ("pytorch",),
}
"""The variants there are, and the backends that serve each."""

TOLERANCES: Final[Mapping[Precision, Tolerance]] = {
    "float32": FLOAT32,
    "float16": FLOAT16,
    "bfloat16": BFLOAT16,
    "int8": INT8,
}

_OPENVINO: Final[Mapping[Precision, local.Precision]] = {
    "float32": "f32",
    "float16": "f32",  # OpenVINO's float16 arithmetic is slower than its float32 on a CPU
    "bfloat16": "bf16",
    "int8": "auto",  # of what is not int8, as it is served
}


def build(
    network: BlobNet, variant: Variant, path: Path, *, metadata: Mapping[str, str], calibration: NDArray[np.uint8]
) -> None:
    """Write one variant of `network` to `path`, which is whole and fits the contract, or untouched.

    Args:
        network: in float32.
        variant: one of `ENGINES`.
        path: where to.
        metadata: properties that the file is to carry, beside its format and precision.
        calibration: `[n, F]` positions that fix the ranges of int8.

    Raises:
        ExportError: no such variant, or no room. InvalidModel: a weight that the precision can't hold.
    """
    if variant not in ENGINES:
        known = ", ".join(map(str, ENGINES))
        raise ExportError(f"expected a variant of {known}, got {variant}; choose another format or precision")
    properties = {**metadata, FORMAT_KEY: variant.format, PRECISION_KEY: variant.precision}
    with tempfile.TemporaryDirectory(prefix="blobzero-build-") as folder:
        built, base = Path(folder) / variant.file_name, Path(folder) / "float32.onnx"
        is_half = variant.precision in ("float16", "bfloat16")
        if variant.format == "torchscript":
            module = HalfNet(network, getattr(torch, variant.precision)) if is_half else copy.deepcopy(network).cpu()
            export_torchscript(module, built, metadata=properties)
        elif variant.precision == "int8":
            export_onnx(network, base, metadata=properties)
            quantize(base, built, rows=calibration)
        else:
            module = HalfNet(network, torch.float16) if variant.precision == "float16" else network
            export_onnx(module, built, metadata=properties)
        read_metadata(built)
        _write(path, built.read_bytes())


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
    if found not in ENGINES:
        known = ", ".join(map(str, ENGINES))
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
        engine: one that `ENGINES` names for the file's variant.
        threads: that compute.

    Raises:
        InvalidModel: a file that does not fit the contract. ExportError: an engine that does not serve it.
        ModelMismatch: an engine that does not load it.
    """
    variant = variant_of(path)
    if engine not in ENGINES[variant]:
        raise ExportError(
            f"expected {' or '.join(ENGINES[variant])} for {variant}, got {engine}; choose another engine"
        )
    if engine == "pytorch":
        return _open_torchscript(path, threads)
    precision = _OPENVINO[variant.precision] if engine == "openvino" else "auto"
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
        raise ExportError(f"expected to write {path}, got {error}; free space or choose another folder") from error
