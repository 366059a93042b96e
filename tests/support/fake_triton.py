# SPDX-License-Identifier: Apache-2.0
"""A gRPC server that plays Triton by a script, for faults that the real one cannot be brought to on demand."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np

from clients.triton.protocol import grpc, service_pb2, service_pb2_grpc
from mcts_ext.contract import INPUT_NAME, N_ACTIONS, N_SEATS, OBSERVATION_BYTES, POLICY_NAME, VALUE_NAME

Step = Callable[[Any, grpc.ServicerContext], Any]
"""One line of the script: a request and its context to a response, or an abort."""


def answer(
    *,
    version: int = 1,
    logit: float = 0.0,
    n_missing: int = 0,
    datatype: str = "FP32",
    values_first: bool = False,
    after_s: float = 0.0,
) -> Step:
    """Answer every row alike; `n_missing` numbers are left out of the policy."""

    def step(request: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(after_s)
        n_rows = request.inputs[0].shape[0]
        assert len(request.raw_input_contents[0]) == n_rows * OBSERVATION_BYTES
        tensors = [
            (POLICY_NAME, np.full(n_rows * N_ACTIONS - n_missing, logit, np.float32)),
            (VALUE_NAME, np.full(n_rows * N_SEATS, 0.25, np.float32)),
        ]
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=str(version))
        for name, array in reversed(tensors) if values_first else tensors:
            response.outputs.add(name=name, datatype=datatype, shape=[n_rows, array.size // n_rows])
            response.raw_output_contents.append(array.tobytes())
        return response

    return step


def fail(code: grpc.StatusCode, details: str = "no reason", *, after_s: float = 0.0) -> Step:
    """Answer with a status."""

    def step(request: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(after_s)
        context.abort(code, details)

    return step


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Steps of `script` answer the inferences in their order of arrival; after the last, `otherwise` does."""

    def __init__(self) -> None:
        self.script: deque[Step] = deque()
        self.otherwise: Step = answer()
        self.config_failures: deque[Step] = deque()
        self.requests: list[Any] = []
        self.config = service_pb2.ModelConfigResponse().config
        self.config.max_batch_size = 8
        self.config.input.add(name=INPUT_NAME, data_type="TYPE_UINT8", dims=[OBSERVATION_BYTES])
        self.config.output.add(name=POLICY_NAME, data_type="TYPE_FP32", dims=[N_ACTIONS])
        self.config.output.add(name=VALUE_NAME, data_type="TYPE_FP32", dims=[N_SEATS])
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(8))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.url = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.config_failures:
            self.config_failures.popleft()(request, context)
        return service_pb2.ModelConfigResponse(config=self.config)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._lock:
            self.requests.append(request)
            step = self.script.popleft() if self.script else self.otherwise
        return step(request, context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()
