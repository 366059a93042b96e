# SPDX-License-Identifier: Apache-2.0
"""In-process evaluator: runs an ONNX file in OpenVINO or ONNX Runtime on the CPU."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from clients.errors import ModelMismatch, ModelNotFound
from clients.evaluator import Evaluation, InProcessEvaluator, check_evaluation
from clients.precision import choose_arithmetic, cpu_flags
from mcts_ext.contract import (
    INPUT_NAME,
    INPUTS,
    OBSERVATION_VERSION,
    OUTPUTS,
    POLICY_NAME,
    PRECISION_KEY,
    VALUE_NAME,
    VERSION_KEY,
)
from mcts_ext.errors import InvalidConfig
from mcts_ext.versions import version_number

Engine = Literal["openvino", "onnxruntime"]
Precision = Literal["auto", "f32", "bf16"]

_TENSORS: Final = {name: f"{kind} [B, {width}]" for name, (kind, width) in (INPUTS | OUTPUTS).items()}


@dataclass(frozen=True)
class _Network:
    """Loaded model file."""

    run: Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
    """`[B, F]` in; new arrays, logits and values, out."""
    tensors: dict[str, str]
    """Inputs and outputs, in the format of `_TENSORS`."""
    observation_version: str | None
    engine: str
    """Description of the engine and its arithmetic."""


class LocalEvaluator(InProcessEvaluator):
    """Evaluates a model file in this process.

    Args:
        path: ONNX file with the contract's tensors; its folder's name is the version if it is a number.
        precision: precision of the arithmetic; `auto` chooses bfloat16 with OpenVINO if the processor has AMX or the
            file is bfloat16.
        on_event: called with one line that states the chosen engine and arithmetic.

    Raises:
        ModelNotFound, ModelMismatch: if the file does not exist, or does not match the contract.
        InvalidConfig: if the engine or the processor does not support the precision.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        engine: Engine = "openvino",
        precision: Precision = "auto",
        threads: int = 1,
        on_event: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__()
        self._path = path = Path(path)
        if not path.is_file():
            raise ModelNotFound(f"expected an ONNX file at {path}, got none; publish one (blobzero publish)")
        if engine == "onnxruntime" and precision == "bf16":
            raise InvalidConfig("expected precision auto or f32 for ONNX Runtime, got bf16; use the engine openvino")
        self._version = version_number(path.parent.name) or 0
        try:
            network = _openvino(path, precision, threads) if engine == "openvino" else _onnxruntime(path, threads)
        except InvalidConfig:
            raise
        except Exception as error:  # the errors of OpenVINO and ONNX Runtime have no common base
            raise ModelMismatch(
                f"expected an ONNX model at {path}, got: {_last_line(error)}; publish it again (blobzero publish)"
            ) from error
        _check(network, path)
        self._run = network.run
        on_event(f"{path} in this process: {network.engine}")

    def _evaluate(self, observations: NDArray[np.uint8]) -> Evaluation:
        evaluation = Evaluation(*self._run(observations), self._version)
        check_evaluation(evaluation, n_rows=len(observations), source=str(self._path))
        return evaluation


def latest_model_file(repository: Path, model: str) -> Path:
    """Return the ONNX file of a repository's latest version."""
    files = (repository / model).glob("*/model.onnx")
    versions = {number: path for path in files if (number := version_number(path.parent.name)) is not None}
    if not versions:
        raise ModelNotFound(
            f"expected {repository / model}/<version>/model.onnx, got no version; publish one (blobzero publish)"
        )
    return versions[max(versions)]


def _openvino(path: Path, requested: Precision, threads: int) -> _Network:
    # Importing OpenVINO would otherwise send telemetry to Google Analytics.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    version, stored = _property(model, VERSION_KEY), _property(model, PRECISION_KEY) or "float32"
    precision, why = choose_arithmetic(requested, stored=stored, flags=cpu_flags())
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = core.compile_model(model, "CPU", settings)
    # Ports are named by the source model: a compiled port may carry the name of a tensor merged with it.
    named = zip((*model.inputs, *model.outputs), (*compiled.inputs, *compiled.outputs), strict=True)
    ports = {source.any_name: port for source, port in named}
    request = compiled.create_infer_request()

    def run(observations: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        outputs = request.infer({INPUT_NAME: observations}, share_inputs=True)
        return outputs[ports[POLICY_NAME]], outputs[ports[VALUE_NAME]]

    tensors = {
        name: _describe(np.dtype(port.element_type.to_dtype()).name, [str(dim) for dim in port.partial_shape])
        for name, port in ports.items()
    }
    products = "int8" if stored == "int8" else precision
    engine = f"OpenVINO {openvino.__version__}, {stored} file, matrix products in {products}"
    return _Network(run, tensors, version, f"{engine}, the rest in {precision} ({why}), {threads} threads")


def _property(model: Any, key: str) -> str | None:
    """Return a metadata property of an ONNX file loaded by OpenVINO."""
    path = ["framework", key]
    return str(model.get_rt_info(path).astype(str)) if model.has_rt_info(path) else None


def _onnxruntime(path: Path, threads: int) -> _Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(observations: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits, values = session.run([POLICY_NAME, VALUE_NAME], {INPUT_NAME: observations})
        return logits, values

    types = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
    tensors = {
        tensor.name: _describe(types.get(tensor.type, tensor.type), tensor.shape)
        for tensor in (*session.get_inputs(), *session.get_outputs())
    }
    properties = session.get_modelmeta().custom_metadata_map
    stored = properties.get(PRECISION_KEY, "float32")
    products = "int8" if stored == "int8" else "f32"
    engine = f"ONNX Runtime {onnxruntime.__version__}, {stored} file, matrix products in {products}"
    return _Network(run, tensors, properties.get(VERSION_KEY), f"{engine}, {threads} threads")


def _check(network: _Network, path: Path) -> None:
    if network.tensors != _TENSORS:
        raise ModelMismatch(
            f"expected {_listing(_TENSORS)} in {path}, got {_listing(network.tensors)}; "
            "export it with this version of blobzero"
        )
    if network.observation_version not in (None, str(OBSERVATION_VERSION)):
        raise ModelMismatch(
            f"expected {VERSION_KEY} {OBSERVATION_VERSION} in {path}, got {network.observation_version}; "
            "export it with this version of blobzero"
        )


def _describe(dtype: str, dims: list[str | int]) -> str:
    """Describe a tensor as in `_TENSORS`; engines name the dynamic batch axis differently."""
    batch, *rest = dims
    batch = batch if str(batch).isdecimal() else "B"
    return f"{dtype} [{', '.join(map(str, (batch, *rest)))}]"


def _listing(tensors: dict[str, str]) -> str:
    return ", ".join(f"{name} {tensors[name]}" for name in sorted(tensors))


def _last_line(error: Exception) -> str:
    """Return the last line: OpenVINO puts source locations first and the cause last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
