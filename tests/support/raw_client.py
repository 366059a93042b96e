# SPDX-License-Identifier: Apache-2.0
"""A client without manners: any bytes to Triton's gRPC method, and what came of each call."""

import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import psutil

from clients.triton.channel import key_metadata, open_channel
from clients.triton.failures import Failure, classify
from clients.triton.protocol import grpc, service_pb2
from mcts_ext.contract import INPUT_NAME, MODEL_NAME, OBSERVATION_BYTES, POLICY_NAME, VALUE_NAME
from serving.embedded import EmbeddedTriton
from tests.support.tiny_model import random_rows, tiny_weights

INFER = "/inference.GRPCInferenceService/ModelInfer"


def key_headers(server: EmbeddedTriton) -> dict[str, str]:
    """What NVIDIA's client has to send with a call of the control API."""
    return dict(key_metadata(server.url, server.config.key_file))


def good_request(n_rows: int = 3) -> Any:
    """A ModelInferRequest as it should be, to be spoilt."""
    request = service_pb2.ModelInferRequest(model_name=MODEL_NAME)
    request.inputs.add(name=INPUT_NAME, datatype="UINT8", shape=[n_rows, OBSERVATION_BYTES])
    request.outputs.add(name=POLICY_NAME)
    request.outputs.add(name=VALUE_NAME)
    request.raw_input_contents.append(random_rows(n_rows, seed=n_rows).tobytes())
    return request


def assert_is_good(data: bytes, n_rows: int = 3) -> None:
    """Compare an answer to `good_request(n_rows)` with the tiny network (seed 1)."""
    response = service_pb2.ModelInferResponse.FromString(data)
    found = {o.name: raw for o, raw in zip(response.outputs, response.raw_output_contents, strict=True)}
    rows = random_rows(n_rows, seed=n_rows).astype(np.float32)
    for name, matrix in tiny_weights(1).items():
        answer = np.frombuffer(found[name], np.float32).reshape(n_rows, -1)
        np.testing.assert_allclose(answer, rows @ matrix, rtol=1e-4, atol=1e-4)


class RawClient:
    """One channel to a server's gRPC door."""

    def __init__(self, url: str) -> None:
        self._channel = open_channel(url)

    def ask(self, data: bytes, *, method: str = INFER, timeout_s: float = 20.0) -> bytes | Failure:
        """The answer, or what its failure means."""
        try:
            return bytes(self._channel.unary_unary(method)(data, timeout=timeout_s))
        except grpc.RpcError as error:
            return classify(error)

    def send(self, data: bytes, *, timeout_s: float = 20.0) -> Any:
        """A call in flight."""
        return self._channel.unary_unary(INFER).future(data, timeout=timeout_s)

    def assert_answers(self, n_rows: int = 3) -> float:
        """A good request gets the network's answer; how long that took, in seconds."""
        began = time.monotonic()
        answer = self.ask(good_request(n_rows).SerializeToString())
        took_s = time.monotonic() - began
        assert isinstance(answer, bytes), answer
        assert_is_good(answer, n_rows)
        return took_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def outcome(call: Any) -> bytes | Failure:
    """What became of a call in flight that was not cancelled here."""
    return classify(call) if call.code() is not grpc.StatusCode.OK else bytes(call.result())


class Standstill:
    """The server's backend processes stand still inside: what is sent queues up, however fast they are."""

    def __init__(self, server: EmbeddedTriton) -> None:
        self._backends: Sequence[psutil.Process] = psutil.Process(server.pid).children()

    def __enter__(self) -> Self:
        for backend in self._backends:
            backend.suspend()
        return self

    def __exit__(self, *_: object) -> None:
        for backend in self._backends:
            backend.resume()
