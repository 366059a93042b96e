# SPDX-License-Identifier: Apache-2.0
"""From float32 to int8: matrix products in whole numbers, with scales fixed once from real positions.

Static quantization, so that the answer to a row does not depend on the rows beside it: weights per output column,
activations per tensor, both symmetric (Jacob et al. 2017, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference"). The file stays ONNX, with QuantizeLinear and DequantizeLinear around each product.
Norms, sums, the pattern table and the two heads stay float32: the heads take 2% of the multiplications, and in int8
they would make half of the policy's error.
"""

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from clients.local import PRECISION_KEY
from mcts_ext.contract import INPUT_NAME
from training.files import write_whole

INT8_FLAGS: Final = frozenset({"avx512_vnni", "avx_vnni"})
"""Processor features that multiply int8 in hardware; without one int8 is hardly faster than float32."""
BFLOAT16_FLAG: Final = "amx_bf16"
"""With it bfloat16 is as fast as int8 and thirty times nearer to float32."""

_HEADS: Final = ("/policy/", "/value/")
_BATCH: Final = 256


def int8_pays(cpuinfo: str) -> bool:
    """Whether int8 is the best that a processor of this /proc/cpuinfo can serve."""
    flags = frozenset(re.findall(r"\w+", cpuinfo))
    return BFLOAT16_FLAG not in flags and not INT8_FLAGS.isdisjoint(flags)


def quantize(source: Path, target: Path, *, rows: NDArray[np.uint8]) -> None:
    """Write the float32 ONNX file `source` to `target` with int8 matrix products; properties are kept.

    Args:
        source: exported by `export_onnx`.
        target: whole or untouched.
        rows: `[n, F]` positions that fix the range of each activation.
    """
    original = onnx.load(str(source))
    with tempfile.TemporaryDirectory(prefix="blobzero-int8-") as folder:
        path = Path(folder) / "model.onnx"
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)  # it recommends an optimization pass that does not change these graphs
        try:
            quantize_static(
                str(source),
                str(path),
                _Rows(rows),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul", "Gemm"],
                nodes_to_exclude=[node.name for node in original.graph.node if node.name.startswith(_HEADS)],
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
            )
        finally:
            logging.disable(previous)
        model = onnx.load(str(path))
    _quantize_tables(model.graph)
    properties = {entry.key: entry.value for entry in original.metadata_props}
    onnx.helper.set_model_props(model, {**properties, PRECISION_KEY: "int8"})
    onnx.checker.check_model(model)
    write_whole(target, model.SerializeToString())


class _Rows(CalibrationDataReader):  # type: ignore[misc]
    """Hands calibration its rows, a batch at a time."""

    def __init__(self, rows: NDArray[np.uint8]) -> None:
        self._batches: Iterator[Mapping[str, Any]] = iter(
            [{INPUT_NAME: rows[start : start + _BATCH]} for start in range(0, len(rows), _BATCH)]
        )

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._batches, None)


def _quantize_tables(graph: onnx.GraphProto) -> None:
    """Where a constant table's rows are looked up and then rounded to int8, round the table instead, once.

    884 features of the cards come out of such a table: rounding them took 1.7 of 21 us a row.
    """
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    producer = {name: node for node in graph.node for name in node.output}
    for rounding in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        lookup = producer.get(rounding.input[0])
        while lookup is not None and lookup.op_type in ("Flatten", "Reshape"):
            lookup = producer.get(lookup.input[0])
        if lookup is None or lookup.op_type != "Gather" or lookup.input[0] not in constants:
            continue
        table, scale = constants[lookup.input[0]], constants[rounding.input[1]]
        rounded = np.clip(np.rint(table / scale), -127, 127).astype(np.int8)
        lookup.input[0] = f"{lookup.input[0]}.int8"
        graph.initializer.append(numpy_helper.from_array(rounded, lookup.input[0]))
        for node in graph.node:
            for i, source in enumerate(node.input):
                if source == rounding.output[0]:
                    node.input[i] = rounding.input[0]
        graph.node.remove(rounding)
    used = {name for node in graph.node for name in node.input}
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in used]:
        graph.node.remove(node)
    del graph.value_info[:]  # inferred types of tensors that have another type now
