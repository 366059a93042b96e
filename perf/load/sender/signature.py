# SPDX-License-Identifier: Apache-2.0
"""The inputs and outputs of any served model, as its server describes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.utils import triton_to_np_dtype

from clients.triton.connection import Connection
from clients.triton.protocol import model_config_pb2, service_pb2
from mcts_ext.contract import INPUT_NAME, OBSERVATION_BYTES
from mcts_ext.errors import InvalidConfig
from perf.load.plan import LoadError, Target


@dataclass(frozen=True)
class Tensor:
    """One input or output."""

    name: str
    datatype: str
    """As on the wire: UINT8, FP32, BYTES."""
    shape: tuple[int, ...]
    """Of one row, or of the whole tensor where the model has no batch dimension; -1 is any size."""

    @property
    def n_items(self) -> int | None:
        """Numbers in a row; None where the server alone knows."""
        return None if min(self.shape, default=1) < 0 else math.prod(self.shape)

    @property
    def row_bytes(self) -> int | None:
        """Bytes of a row; None where the server alone knows."""
        if self.datatype == "BYTES" or self.n_items is None:
            return None
        return self.n_items * self.dtype.itemsize

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of an array that holds it; of objects for BYTES, each of which has a length of its own."""
        return np.dtype(triton_to_np_dtype(self.datatype))


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int
    """0: the model has no batch dimension, and a request is one row."""

    @property
    def is_ours(self) -> bool:
        """Whether it takes our positions."""
        return self.inputs == (Tensor(INPUT_NAME, "UINT8", (OBSERVATION_BYTES,)),) and self.max_batch_size > 0

    @property
    def most_rows(self) -> int:
        return max(1, self.max_batch_size)

    def dims(self, tensor: Tensor, n_rows: int) -> list[int]:
        """The shape of a tensor in a request."""
        return [n_rows, *tensor.shape] if self.max_batch_size else list(tensor.shape)


def read_signature(target: Target, *, shapes: Sequence[str] = (), timeout_s: float = 10.0) -> Signature:
    """Ask the server.

    Raises:
        EvaluatorError: no server, or no such model.
        LoadError: an input has a dimension of any size, and `shapes` says nothing of it.
    """
    request = service_pb2.ModelConfigRequest(name=target.model, version=target.version)
    with Connection(target.url) as connection:
        reply = connection.call("ModelConfig", request, model=target.model, timeout_s=timeout_s)
    wanted = dict(map(parse_shape, shapes))
    inputs = [_tensor(entry) for entry in reply.config.input if not entry.optional]
    if unknown := wanted.keys() - {tensor.name for tensor in inputs}:
        known = ", ".join(tensor.name for tensor in inputs)
        raise InvalidConfig(f"expected --shape of an input of {target.model} ({known}), got {', '.join(unknown)}")
    inputs = [Tensor(one.name, one.datatype, wanted.get(one.name, one.shape)) for one in inputs]
    for one in inputs:
        if one.n_items is None:
            dims = ",".join(map(str, one.shape))
            raise LoadError(
                f"expected input {one.name} of {target.model} to have a fixed shape, got [{dims}]; "
                f"say which, for example --shape {one.name}:{dims.replace('-1', '128')}"
            )
    return Signature(tuple(inputs), tuple(map(_tensor, reply.config.output)), int(reply.config.max_batch_size))


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """NAME:3,224,224."""
    name, _, dims = text.rpartition(":")
    found = dims.split(",")
    if not name or not all(one.isdecimal() and int(one) for one in found):
        raise InvalidConfig(
            f"expected --shape NAME:DIMENSIONS, for example tokens:128 or image:3,224,224, got {text!r}"
        )
    return name, tuple(map(int, found))


def _tensor(entry: Any) -> Tensor:
    datatype = str(model_config_pb2.DataType.Name(entry.data_type)).removeprefix("TYPE_")
    return Tensor(entry.name, "BYTES" if datatype == "STRING" else datatype, tuple(map(int, entry.dims)))
