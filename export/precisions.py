# SPDX-License-Identifier: Apache-2.0
"""The precisions of an exported network: one row each, from which building, serving, comparing and the help derive.

`variants.py` builds what a row says. No PyTorch here, so that the command line can read the names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Format = Literal["onnx", "torchscript"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]

FILE_NAMES: Final[dict[Format, str]] = {"onnx": "model.onnx", "torchscript": "model.pt"}
"""Of a version's file, by format, as Triton's backends look for them."""


@dataclass(frozen=True)
class Tolerance:
    """How far two evaluations may differ."""

    logit: float
    """Largest difference of one logit."""
    kl: float
    """Mean Kullback-Leibler divergence of the policies."""
    value: float
    """Largest difference of one value."""
    mean_value: float
    """Mean difference of the values, without regard to sign."""


SERVED: Final = Tolerance(logit=float("inf"), kl=1e-2, value=0.02, mean_value=0.02)
"""For a server that may have chosen bfloat16: single logits are coarse there, the policy as a whole is not."""
_INT8: Final = Tolerance(logit=float("inf"), kl=5e-3, value=0.25, mean_value=0.01)
"""Rounding to 256 steps leaves a few values far off; on average they must be near. A made bid is worth 0.67."""


@dataclass(frozen=True)
class Build:
    """How one format holds a precision."""

    engines: tuple[str, ...]
    """That serve it; answers are compared in the first where one comparison is enough."""
    weights: Literal["float32", "float16", "bfloat16"] = "float32"
    """Their type in the file; with another than float32 it is the network of half_precision.py."""
    is_quantized: bool = False
    """Whether quantize.py follows."""


@dataclass(frozen=True)
class Row:
    """A precision."""

    builds: Mapping[Format, Build]
    tolerance: Tolerance
    """Against PyTorch in float32."""
    openvino: Literal["auto", "f32", "bf16"] = "f32"
    """The arithmetic that OpenVINO is asked for when the file is compared and timed."""
    served: Tolerance = SERVED
    """Of a server's answers, against the file's."""


PRECISIONS: Final[Mapping[Precision, Row]] = {
    "float32": Row(
        {"onnx": Build(("openvino", "onnxruntime")), "torchscript": Build(("pytorch",))},
        Tolerance(logit=1e-4, kl=1e-6, value=1e-4, mean_value=1e-4),
    ),
    "float16": Row(
        {
            "onnx": Build(("openvino", "onnxruntime"), weights="float16"),
            "torchscript": Build(("pytorch",), weights="float16"),
        },
        Tolerance(logit=float("inf"), kl=1e-4, value=0.02, mean_value=1e-3),
        # OpenVINO's float16 arithmetic is slower than its float32 on a CPU.
        openvino="f32",
    ),
    "bfloat16": Row(
        {
            # ONNX Runtime's CPU provider has no bfloat16 products ("NOT_IMPLEMENTED" when it loads them), so the file
            # is float32 with a property that asks for them, and OpenVINO rounds.
            "onnx": Build(("openvino",)),
            "torchscript": Build(("pytorch",), weights="bfloat16"),
        },
        Tolerance(logit=float("inf"), kl=5e-3, value=0.1, mean_value=5e-3),
        openvino="bf16",
    ),
    "int8": Row(
        {"onnx": Build(("openvino", "onnxruntime"), is_quantized=True)},  # TorchScript has none: torchscript.py
        _INT8,
        openvino="auto",  # of what is not int8, as it is served
        served=_INT8,
    ),
}


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

    @property
    def build(self) -> Build:
        return PRECISIONS[self.precision].builds[self.format]

    @property
    def engines(self) -> tuple[str, ...]:
        return self.build.engines

    @property
    def row(self) -> Row:
        return PRECISIONS[self.precision]


VARIANTS: Final = tuple(
    Variant(form, precision) for form in FILE_NAMES for precision, row in PRECISIONS.items() if form in row.builds
)
"""Those that there are."""
