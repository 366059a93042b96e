# SPDX-License-Identifier: Apache-2.0
"""Wire format of the inference request and response, with a minimum of tensor copies.

Protobuf's generated classes copy a tensor three times when sending and twice when receiving; at 1,024 rows, mapping and
unmapping their large buffers costs as much CPU as everything else. Two properties of protobuf's encoding avoid this: a
message followed by another field is the message with that field added, and a bytes field is a tag, a length and the raw
bytes.

```
request    | model, inputs, outputs (generated class) | 0x3a | length | rows | for each input
response   | model, version, outputs (generated class) | 0x32 | length | logits | 0x32 | length | values |
```
"""

from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from clients.triton.protocol import service_pb2

_BYTES: Final = 2  # protobuf wire type LEN: bytes, strings and messages
_RAW_INPUT: Final = bytes([service_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | _BYTES])
_RAW_OUTPUT: Final = service_pb2.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | _BYTES


def encode_request(head: Any, *tensors: NDArray[Any]) -> bytes:
    """Serialize a ModelInferRequest: `head` with the raw contents of `tensors`, in the order of its `inputs`."""
    parts = [head.SerializeToString()]
    for tensor in tensors:
        parts += (_RAW_INPUT, _varint(tensor.nbytes), tensor.data)
    return b"".join(parts)


def decode_response(data: bytes) -> tuple[Any, list[NDArray[np.float32]]]:
    """Parse a ModelInferResponse; return it without its raw contents, and these as flat arrays, ordered as `outputs`.

    Raises:
        ValueError: if the message is malformed.
    """
    head: list[bytes] = []
    tensors: list[NDArray[np.float32]] = []
    at = 0
    while at < len(data):
        start = at
        tag, at = _read_varint(data, at)
        n_bytes, at = _read_varint(data, at)
        if tag & 7 != _BYTES or at + n_bytes > len(data):
            raise ValueError(f"field {tag >> 3} at byte {start} is not one of a ModelInferResponse")
        if tag == _RAW_OUTPUT:
            tensor = np.frombuffer(data, "<f4", n_bytes // 4, at) if n_bytes >= 4 else np.empty(0, np.float32)
            tensors.append(tensor if tensor.flags.aligned else tensor.copy())
        else:
            head.append(data[start : at + n_bytes])
        at += n_bytes
    try:
        return service_pb2.ModelInferResponse.FromString(b"".join(head)), tensors
    except DecodeError as error:
        raise ValueError(str(error)) from error


def _varint(number: int) -> bytes:
    """Encode a protobuf varint: seven bits per byte, lowest first, the high bit set in all but the last."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Decode the varint at `at`; return it and the position after it."""
    number = 0
    for i, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number, at + i + 1
    raise ValueError(f"no varint at byte {at}")
