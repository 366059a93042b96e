# SPDX-License-Identifier: Apache-2.0
"""Backend `openvino`: OpenVINO on the CPU, in bfloat16 if that is faster or the file requires it.

Parameters in `config.pbtxt`: `precision` is `auto` (default), `f32` or `bf16`; `threads`, 0 for all cores.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.precision import choose_arithmetic, cpu_flags
from mcts_ext.contract import PRECISION_KEY, VERSION_KEY
from serving.backends.common import BatchingModel, Network, parameter

# Importing OpenVINO would otherwise send telemetry to Google Analytics.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402  isort: skip

LEAST_STEP = 16
"""Minimum step between batch shapes in rows; this many rows take 0.2 ms longer than one."""


def padded(n_rows: int, last: int) -> int:
    """Return the padded size of a batch of `n_rows` if the previous batch was padded to `last`.

    A change of shape costs 1 to 2 ms; a new shape 4 to 15 ms, and 2.5 MB that OpenVINO keeps. So the last shape is
    reused while it wastes at most an eighth; otherwise the next of eight sizes per octave is used, all multiples of
    `LEAST_STEP`.
    """
    if n_rows <= last <= n_rows + last // 8:
        return last
    step = max(LEAST_STEP, 1 << max(0, (n_rows - 1).bit_length() - 4))
    return -(-n_rows // step) * step


class OpenvinoNetwork:
    """Compiled OpenVINO model with one infer request; outputs are views of the request's memory."""

    def __init__(self, path: Path, *, requested: str, n_threads: int) -> None:
        core = ov.Core()
        model = core.read_model(str(path))
        keys = [key for key in (VERSION_KEY, PRECISION_KEY) if model.has_rt_info(["framework", key])]
        self.properties: Mapping[str, str] = {
            key: str(model.get_rt_info(["framework", key]).astype(str)) for key in keys
        }
        self.stored = self.properties.get(PRECISION_KEY, "float32")
        self.precision, self.why = choose_arithmetic(requested, stored=self.stored, flags=cpu_flags())
        settings = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": n_threads,
            "NUM_STREAMS": 1,  # the dynamic batcher already sends one large batch at a time
            "PERFORMANCE_HINT": "LATENCY",
            # With pinning, two one-thread instances share one core: 12.6k rows/s on two cores, 19k without.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", settings)
        source = compiled.input(0)
        # Ports are named by the source model: a compiled port may carry the name of a tensor merged with it.
        self.input_name = model.input(0).any_name
        self.row_shape = tuple(d.get_length() for d in list(source.partial_shape)[1:])
        self.dtype = np.dtype(source.element_type.to_dtype())
        self.output_names = tuple(port.any_name for port in model.outputs)
        self.request = compiled.create_infer_request()
        self.rows = np.zeros((0, *self.row_shape), self.dtype)

    def run(self, rows: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `Network`."""
        n = len(rows)
        size = padded(n, len(self.rows))
        if size != len(self.rows):
            # Padding rows keep stale contents; each row's output depends on that row only.
            self.rows = np.ones((size, *self.row_shape), self.dtype)
            self.request.set_input_tensor(ov.Tensor(self.rows, shared_memory=True))
        self.rows[:n] = rows
        self.request.infer()
        return {name: self.request.get_output_tensor(i).data[:n] for i, name in enumerate(self.output_names)}


class TritonPythonModel(BatchingModel):
    """Class expected by Triton."""

    def sizes(self) -> Sequence[int]:
        """See `BatchingModel`: all possible shapes."""
        shapes = sorted({padded(n, 0) for n in range(1, self.max_rows + 1)})
        return [min(shape, self.max_rows) for shape in shapes]

    def load(self, path: Path, config: Mapping[str, Any], n_threads: int) -> tuple[Network, str]:
        """See `BatchingModel`."""
        requested = parameter(config, "precision", "auto", choices=("auto", "f32", "bf16"))
        network = OpenvinoNetwork(path, requested=requested, n_threads=n_threads)
        products = "int8" if network.stored == "int8" else network.precision
        how = f"OpenVINO {ov.__version__}, {network.stored} file, matrix products in {products}, {n_threads} threads"
        return network, f"{how}; what is not quantized in {network.precision} ({network.why})"
