# SPDX-License-Identifier: Apache-2.0
"""The variants of an exported network: formats and precisions, who serves each, how far it may be off.

| format | float32 | float16 | bfloat16 | int8 |
| --- | --- | --- | --- | --- |
| `onnx` | yes | weights | the engine's products: OpenVINO | static: quantize.py |
| `torchscript` | yes | yes | yes | no: torchscript.py |

Axes: `n` rows, `F` = 96 bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from clients.evaluator import evaluate as ask
from clients.local import PRECISION_KEY, Engine, LocalEvaluator
from export.errors import ExportError
from export.graph import export_onnx, properties_of, read_metadata
from export.halves import HalfNet, round_weights
from export.parity import FLOAT32, INT8, SERVED, Answers, Tolerance
from export.quantize import quantize
from export.torchscript import annotate_torchscript, export_torchscript, load_torchscript
from mcts_ext.contract import MODEL_NAME
from training.files import write_whole
from training.network import BlobNet

Format = Literal["onnx", "torchscript"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]

FILE_NAMES: Final[dict[Format, str]] = {"onnx": "model.onnx", "torchscript": "model.pt"}
"""As Triton's backends look for them."""

_BATCH: Final = 512


@dataclass(frozen=True)
class Variant:
    """A format and a precision."""

    format: Format
    precision: Precision

    def __str__(self) -> str:
        return f"{self.format} {self.precision}"

    @property
    def file_name(self) -> str:
        return FILE_NAMES[self.format]


ENGINES: Final[Mapping[Variant, tuple[str, ...]]] = {
    Variant("onnx", "float32"): ("onnxruntime", "openvino"),
    Variant("onnx", "float16"): ("onnxruntime", "openvino"),
    Variant("onnx", "bfloat16"): ("openvino",),
    Variant("onnx", "int8"): ("onnxruntime", "openvino"),
    Variant("torchscript", "float32"): ("pytorch",),
    Variant("torchscript", "float16"): ("pytorch",),
    Variant("torchscript", "bfloat16"): ("pytorch",),
}
"""The variants there are, and the backends that serve each; the first has the last word on parity."""

TOLERANCES: Final[Mapping[Precision, Tolerance]] = {
    "float32": FLOAT32,
    "float16": SERVED,
    "bfloat16": SERVED,
    "int8": INT8,
}


def build(
    network: BlobNet, variant: Variant, path: Path, *, metadata: Mapping[str, str], calibration: NDArray[np.uint8]
) -> None:
    """Write one variant of `network` to `path`, which is whole or untouched.

    Args:
        network: in float32.
        variant: one of `ENGINES`.
        path: where to; its folder exists.
        metadata: properties that the file is to carry.
        calibration: `[n, F]` positions that fix the ranges of int8.

    Raises:
        ExportError: no such variant, or no room.
    """
    metadata = {**metadata, "format": variant.format, PRECISION_KEY: variant.precision}
    if variant not in ENGINES:
        known = ", ".join(map(str, ENGINES))
        raise ExportError(f"expected a variant of {known}, got {variant}; choose another format or precision")
    if variant.format == "torchscript":
        dtype = getattr(torch, variant.precision)
        module = network if variant.precision == "float32" else HalfNet(network, dtype)
        export_torchscript(module, path, metadata=metadata)
    elif variant.precision == "int8":
        exact = path.with_name("float32.onnx")
        export_onnx(network, exact, metadata=metadata)
        quantize(exact, path, rows=calibration)
        exact.unlink()
    else:
        export_onnx(network, path, metadata=metadata)
        if variant.precision == "float16":
            model = onnx.load(str(path))
            round_weights(model)
            _save(model, path)


def annotate(path: Path, properties: Mapping[str, str]) -> None:
    """Add properties to an exported file, which is whole or as it was."""
    if path.suffix == ".pt":
        annotate_torchscript(path, properties)
        return
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {**properties_of(model), **properties})
    _save(model, path)


def variant_of(path: Path) -> Variant:
    """What an exported file is.

    Raises:
        InvalidModel: it does not fit the contract; ExportError: it says that it is of a precision that is not built.
    """
    form: Format = "torchscript" if path.suffix == ".pt" else "onnx"
    found = Variant(form, cast(Precision, read_metadata(path).get(PRECISION_KEY, "float32")))
    if found not in ENGINES:
        raise ExportError(f"expected one of {', '.join(map(str, ENGINES))}, got {found} in {path}; export it again")
    return found


def evaluate(path: Path, rows: NDArray[np.uint8], *, engine: str, threads: int = 1) -> Answers:
    """Evaluate `[n, F]` rows in this process, as the backend `engine` would.

    Raises:
        BlobError: a subclass says that the engine does not take the file, or that an answer is not finite.
    """
    run = open_engine(path, engine=engine, threads=threads)
    found = [run(rows[start : start + _BATCH]) for start in range(0, len(rows), _BATCH)]
    return Answers(np.concatenate([part.policy for part in found]), np.concatenate([part.value for part in found]))


def open_engine(path: Path, *, engine: str, threads: int) -> Callable[[NDArray[np.uint8]], Answers]:
    """Load a file into the engine of a backend, in this process; call the result with `[n, F]` rows."""
    if engine == "pytorch":
        return _open_torchscript(path, threads=threads)
    precision: Any = "f32" if variant_of(path).precision == "float32" else "auto"
    evaluator = LocalEvaluator(
        path, engine=cast(Engine, engine), precision=precision if engine == "openvino" else "auto", threads=threads
    )

    def run(rows: NDArray[np.uint8]) -> Answers:
        found = ask(evaluator, rows)
        return Answers(found.logits, found.values)

    return run


def _open_torchscript(path: Path, *, threads: int) -> Callable[[NDArray[np.uint8]], Answers]:
    module = load_torchscript(path)

    def run(rows: NDArray[np.uint8]) -> Answers:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                policy, value = module(torch.from_numpy(rows))
        finally:
            torch.set_num_threads(before)
        answers = Answers(policy.numpy(), value.numpy())
        if not all(np.isfinite(numbers).all() for numbers in answers):
            raise ExportError(f"expected finite numbers from {MODEL_NAME} in {path}, got others; look at its weights")
        return answers

    return run


def _save(model: onnx.ModelProto, path: Path) -> None:
    try:
        write_whole(path, model.SerializeToString())
    except OSError as error:
        raise ExportError(f"expected to write {path}, got {error}; free space or choose another folder") from error
