# SPDX-License-Identifier: Apache-2.0
"""Backend `openvino`: ONNX through OpenVINO on the CPU, in bfloat16 where the processor multiplies it in hardware.

Parameters of `config.pbtxt`: `precision` is `auto` (default), `f32` or `bf16`; `threads` is a count, 0 for every core.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from serving.backends.common import BatchingModel, Network, model_path, parameter, thread_count


def choose_precision(asked: str, *, cpu_flags: frozenset[str]) -> tuple[str, str]:
    """Choose the arithmetic and say why.

    AVX512-BF16 alone isn't enough: without AMX, bfloat16 was measured at 7.4k rows/s where float32 gave 12.6k.
    """
    if asked != "auto":
        return asked, "asked for in config.pbtxt"
    if "amx_bf16" in cpu_flags:
        return "bf16", "the processor has AMX"
    return "f32", "the processor has no AMX, without which bfloat16 is slower than float32"


def cpu_flags() -> frozenset[str]:
    """The features Linux reports for the first processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def padded(n_rows: int, last: int) -> int:
    """Rows to compute for a batch of `n_rows` when the batch before had `last`.

    Another shape costs a fixed 1 to 2 ms, and 7 ms the first time. So the last one stays while it wastes at most an
    eighth of itself; else the next size of which an octave has eight is taken.
    """
    if n_rows <= last <= n_rows + last // 8:
        return last
    step = 1 << max(0, (n_rows - 1).bit_length() - 4)
    return -(-n_rows // step) * step


class OpenvinoNetwork:
    """One compiled model with one infer request; answers are views of the request's own memory."""

    def __init__(self, path: Path, *, precision: str, n_threads: int) -> None:
        core = ov.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": n_threads,
            "NUM_STREAMS": 1,  # the dynamic batcher already sends one large batch at a time
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned, two one-thread instances share one core: 12.6k rows/s on two cores, 19k without.
            "ENABLE_CPU_PINNING": False,
        }
        model = core.read_model(str(path))
        key = ["framework", "precision"]  # a property that the export leaves in files of another precision than float32
        self.products = model.get_rt_info(key).astype(str) if model.has_rt_info(key) else precision
        compiled = core.compile_model(model, "CPU", settings)
        source = compiled.input(0)
        self.input_name = source.any_name
        self.row_shape = tuple(d.get_length() for d in list(source.partial_shape)[1:])
        self.dtype = np.dtype(source.element_type.to_dtype())
        self.output_names = tuple(port.any_name for port in compiled.outputs)
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

    def load(self, args: Mapping[str, str]) -> tuple[Network, str]:
        """See `BatchingModel`."""
        asked = parameter(args, "precision", "auto", choices=("auto", "f32", "bf16"))
        precision, why = choose_precision(asked, cpu_flags=cpu_flags())
        n_threads = thread_count(args)
        network = OpenvinoNetwork(model_path(args), precision=precision, n_threads=n_threads)
        how = f"OpenVINO {ov.__version__}, matrix products in {network.products}, {n_threads} threads"
        return network, f"{how}; what is not quantized in {precision} ({why})"
