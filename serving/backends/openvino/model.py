# SPDX-License-Identifier: Apache-2.0
"""Backend `openvino`: ONNX through OpenVINO on the CPU, in bfloat16 where that pays or the file asks for it.

Parameters of `config.pbtxt`: `precision` is `auto` (default), `f32` or `bf16`; `threads` is a count, 0 for every core.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.precision import choose_arithmetic, cpu_flags
from mcts_ext.contract import PRECISION_KEY, VERSION_KEY
from serving.backends.common import BatchingModel, Network, parameter, thread_count

# Else an import of OpenVINO is reported to Google Analytics.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402  isort: skip

LEAST_STEP = 16
"""Rows; so many take 0.2 ms longer than one."""


def padded(n_rows: int, last: int) -> int:
    """Rows to compute for a batch of `n_rows` when the batch before had `last`.

    Another shape costs a fixed 1 to 2 ms; the first time 4 to 15 ms, and the 2.5 MB that OpenVINO keeps of each. So
    the last one stays while it wastes at most an eighth of itself; else the next size of which an octave has eight is
    taken, multiples of `LEAST_STEP` all.
    """
    if n_rows <= last <= n_rows + last // 8:
        return last
    step = max(LEAST_STEP, 1 << max(0, (n_rows - 1).bit_length() - 4))
    return -(-n_rows // step) * step


class OpenvinoNetwork:
    """One compiled model with one infer request; answers are views of the request's own memory."""

    def __init__(self, path: Path, *, asked: str, n_threads: int) -> None:
        core = ov.Core()
        model = core.read_model(str(path))
        keys = [key for key in (VERSION_KEY, PRECISION_KEY) if model.has_rt_info(["framework", key])]
        self.properties: Mapping[str, str] = {
            key: str(model.get_rt_info(["framework", key]).astype(str)) for key in keys
        }
        self.stored = self.properties.get(PRECISION_KEY, "float32")
        self.precision, self.why = choose_arithmetic(asked, stored=self.stored, flags=cpu_flags())
        settings = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": n_threads,
            "NUM_STREAMS": 1,  # the dynamic batcher already sends one large batch at a time
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned, two one-thread instances share one core: 12.6k rows/s on two cores, 19k without.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", settings)
        source = compiled.input(0)
        # By the names in the file: compiled, a port may answer to that of a tensor that was merged with it.
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
            # Rows beyond the batch hold what earlier ones left there; a row's answer depends on nothing but the row.
            self.rows = np.ones((size, *self.row_shape), self.dtype)
            self.request.set_input_tensor(ov.Tensor(self.rows, shared_memory=True))
        self.rows[:n] = rows
        self.request.infer()
        return {name: self.request.get_output_tensor(i).data[:n] for i, name in enumerate(self.output_names)}


class TritonPythonModel(BatchingModel):
    """The class Triton looks for."""

    def sizes(self) -> Sequence[int]:
        """See `BatchingModel`: every shape there will ever be."""
        shapes = sorted({padded(n, 0) for n in range(1, self.max_rows + 1)})
        return [min(shape, self.max_rows) for shape in shapes]

    def load(self, path: Path, args: Mapping[str, str]) -> tuple[Network, str]:
        """See `BatchingModel`."""
        asked = parameter(args, "precision", "auto", choices=("auto", "f32", "bf16"))
        n_threads = thread_count(args)
        network = OpenvinoNetwork(path, asked=asked, n_threads=n_threads)
        products = "int8" if network.stored == "int8" else network.precision
        how = f"OpenVINO {ov.__version__}, {network.stored} file, matrix products in {products}, {n_threads} threads"
        return network, f"{how}; what is not quantized in {network.precision} ({network.why})"
