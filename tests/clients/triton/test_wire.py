# SPDX-License-Identifier: Apache-2.0
"""Hand-made messages against protobuf's generated classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.triton.protocol import service_pb2
from clients.triton.wire import decode_response, encode_request
from mcts_ext.contract import INPUT_NAME, OBSERVATION_BYTES
from tests.support.tiny_model import random_rows


@given(n_rows=st.integers(1, 400), model=st.text(min_size=1, max_size=300))
def test_a_request_reads_as_the_generated_class_would_write_it(n_rows: int, model: str) -> None:
    rows = random_rows(n_rows, seed=n_rows)
    head = service_pb2.ModelInferRequest(model_name=model, model_version="5")
    head.inputs.add(name=INPUT_NAME, datatype="UINT8", shape=[n_rows, OBSERVATION_BYTES])
    head.outputs.add(name="policy")
    whole = service_pb2.ModelInferRequest()
    whole.CopyFrom(head)
    whole.raw_input_contents.append(rows.tobytes())
    assert encode_request(head, rows) == whole.SerializeToString()
    assert not head.raw_input_contents


@given(
    sizes=st.lists(st.one_of(st.integers(0, 40), st.integers(4000, 70000)), max_size=3),
    model=st.text(max_size=9),
    raw_first=st.booleans(),
)
def test_a_response_reads_as_by_the_generated_class(sizes: list[int], model: str, raw_first: bool) -> None:
    response = service_pb2.ModelInferResponse(model_name=model, model_version="12")
    response.parameters["sequence"].int64_param = 3
    arrays = [np.random.default_rng(i).standard_normal(size).astype(np.float32) for i, size in enumerate(sizes)]
    for i, array in enumerate(arrays):
        response.outputs.add(name=f"o{i}", datatype="FP32", shape=[len(array), 1])
    head = response.SerializeToString()
    tensors = service_pb2.ModelInferResponse(raw_output_contents=[array.tobytes() for array in arrays])
    data = tensors.SerializeToString() + head if raw_first else head + tensors.SerializeToString()
    found, found_arrays = decode_response(data)
    assert found == response
    assert len(found_arrays) == len(arrays)
    for expected, got in zip(arrays, found_arrays, strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.flags.aligned


def test_half_a_response_is_refused() -> None:
    response = service_pb2.ModelInferResponse(model_name="m", model_version="1", raw_output_contents=[bytes(400)])
    data = response.SerializeToString()
    assert decode_response(data)[1][0].size == 100
    fields = 0
    for end in range(1, len(data)):
        try:
            decode_response(data[:end])
            fields += 1  # cut between two fields: a shorter message, and a sound one
        except ValueError:
            pass
    assert fields == 2


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        decode_response(data)
    except ValueError:
        return
    service_pb2.ModelInferResponse.FromString(data)


def test_a_plain_error_page_is_refused() -> None:
    with pytest.raises(ValueError, match="byte 0"):
        decode_response(b"<html><body>404</body></html>")
