# SPDX-License-Identifier: Apache-2.0
"""Quantization from float32 to int8: integer matrix products, with static scales calibrated on real positions.

Quantization is static, so that the outputs of a row do not depend on the rest of the batch: weights per output column,
activations per tensor, both symmetric (Jacob et al. 2017, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference"). The file stays ONNX, with QuantizeLinear and DequantizeLinear around each product.
Norms, sums, decoder, embeddings, the layer after the embedding of orders, and the heads stay float32: their products
are 3% of the multiplications, and in int8 they would cause most of the policy's error.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from export.graph import properties_of
from mcts_ext.contract import INPUT_NAME, PRECISION_KEY

_IN_FLOAT: Final = ("/decoder/", "/from_orders/", "/bids/", "/plays/", "/value/")
_BATCH: Final = 256


def quantize(source: Path, target: Path, *, rows: NDArray[np.uint8]) -> None:
    """Convert the float32 ONNX file `source` to `target` with int8 matrix products; metadata is kept.

    Args:
        rows: `[n, F]` positions that calibrate the range of each activation.
    """
    original = onnx.load(str(source))
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it recommends a pass that does not change these graphs
    try:
        quantize_static(
            str(source),
            str(target),
            _CalibrationRows(rows),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=[node.name for node in original.graph.node if node.name.startswith(_IN_FLOAT)],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
    finally:
        logging.disable(previous)
    model = onnx.load(str(target))
    onnx.helper.set_model_props(model, {PRECISION_KEY: "int8", **properties_of(original)})
    onnx.save(model, str(target))


class _CalibrationRows(CalibrationDataReader):  # type: ignore[misc]
    """Yields the calibration rows in batches."""

    def __init__(self, rows: NDArray[np.uint8]) -> None:
        self._batches: Iterator[Mapping[str, Any]] = iter(
            [{INPUT_NAME: rows[start : start + _BATCH]} for start in range(0, len(rows), _BATCH)]
        )

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._batches, None)
