# SPDX-License-Identifier: Apache-2.0
"""Precisions of an exported network: one entry each, from which building, serving, comparing and the help derive.

`variants.py` builds them. This module does not import PyTorch, so that the command line loads quickly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Format = Literal["onnx", "torchscript"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]

FILE_NAMES: Final[dict[Format, str]] = {"onnx": "model.onnx", "torchscript": "model.pt"}
"""Name of a version's file by format, as expected by Triton's backends."""


@dataclass(frozen=True)
class Tolerance:
    """Maximum difference of two evaluations."""

    logit: float
    """Maximum absolute difference of a logit."""
    kl: float
    """Maximum mean KL divergence of the policies."""
    value: float
    """Maximum absolute difference of a value."""
    mean_value: float
    """Maximum mean absolute difference of the values."""


SERVED: Final = Tolerance(logit=float("inf"), kl=1e-2, value=0.02, mean_value=0.02)
"""For a server that may have chosen bfloat16: single logits are coarse, the policy as a whole is accurate."""
_INT8: Final = Tolerance(logit=float("inf"), kl=5e-3, value=0.25, mean_value=0.01)
"""Rounding to 256 steps leaves a few outliers, but the mean must be close. For scale: a made bid is worth 0.67."""


@dataclass(frozen=True)
class Build:
    """How a precision is built in one format."""

    engines: tuple[str, ...]
    """Engines that serve it; the first is used where one comparison is enough."""
    weights: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type of the weights in the file; half_precision.py converts the network to other types than float32."""
    is_quantized: bool = False
    """Whether quantize.py is applied."""


@dataclass(frozen=True)
class PrecisionSpec:
    """Properties of one precision."""

    builds: Mapping[Format, Build]
    tolerance: Tolerance
    """Tolerance against PyTorch in float32."""
    openvino: Literal["auto", "f32", "bf16"] = "f32"
    """OpenVINO's arithmetic when the file is compared and timed."""
    served: Tolerance = SERVED
    """Tolerance of a server's outputs against the file's."""


PRECISIONS: Final[Mapping[Precision, PrecisionSpec]] = {
    "float32": PrecisionSpec(
        {"onnx": Build(("openvino", "onnxruntime")), "torchscript": Build(("pytorch",))},
        Tolerance(logit=1e-4, kl=1e-6, value=1e-4, mean_value=1e-4),
    ),
    "float16": PrecisionSpec(
        {
            "onnx": Build(("openvino", "onnxruntime"), weights="float16"),
            "torchscript": Build(("pytorch",), weights="float16"),
        },
        Tolerance(logit=float("inf"), kl=1e-4, value=0.02, mean_value=1e-3),
        # OpenVINO's float16 arithmetic is slower than its float32 on a CPU.
        openvino="f32",
    ),
    "bfloat16": PrecisionSpec(
        {
            # ONNX Runtime's CPU provider has no bfloat16 products ("NOT_IMPLEMENTED" on loading), so the file is
            # float32 with a property that requests them, and OpenVINO rounds.
            "onnx": Build(("openvino",)),
            "torchscript": Build(("pytorch",), weights="bfloat16"),
        },
        Tolerance(logit=float("inf"), kl=5e-3, value=0.1, mean_value=5e-3),
        openvino="bf16",
    ),
    "int8": PrecisionSpec(
        {"onnx": Build(("openvino", "onnxruntime"), is_quantized=True)},  # TorchScript has none: torchscript.py
        _INT8,
        openvino="auto",  # for the parts that are not int8, as when served
        served=_INT8,
    ),
}


@dataclass(frozen=True)
class Variant:
    """Combination of a format and a precision."""

    format: Format
    precision: Precision

    def __str__(self) -> str:
        return f"{self.format} {self.precision}"

    @property
    def file_name(self) -> str:
        """Name of the exported file."""
        return FILE_NAMES[self.format]

    @property
    def build(self) -> Build:
        return PRECISIONS[self.precision].builds[self.format]

    @property
    def engines(self) -> tuple[str, ...]:
        return self.build.engines

    @property
    def spec(self) -> PrecisionSpec:
        return PRECISIONS[self.precision]


VARIANTS: Final = tuple(
    Variant(form, precision) for form in FILE_NAMES for precision, spec in PRECISIONS.items() if form in spec.builds
)
"""All supported variants."""
