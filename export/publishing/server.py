# SPDX-License-Identifier: Apache-2.0
"""Client of Triton's control API for publishing: load the repository, list loaded versions, evaluate positions."""

import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clients.errors import EvaluatorError, ModelNotFound
from clients.evaluator import evaluate
from clients.triton.channel import key_metadata
from clients.triton.connection import Connection
from clients.triton.evaluator import TritonEvaluator
from clients.triton.protocol import model_config_pb2, service_pb2
from export.parity import Answers
from mcts_ext.contract import MODEL_NAME

LOAD_TIMEOUT_S: Final = 120.0
"""Timeout of a load including warm-up, during which TensorRT builds its engine."""
ANSWER_TIMEOUT_S: Final = 20.0
_ROWS_AT_A_TIME: Final = 256
READY: Final = "READY"


class ModelServer(Connection):
    """Connection to the control API of one server, with the key found by `clients.keys.find_key`."""

    def __init__(self, url: str, *, key_file: Path | None = None) -> None:
        self._key = key_metadata(url, key_file)
        super().__init__(url)

    def live_states(self) -> dict[int, str]:
        """Return the `states`, which require the key, of a server that responds at once.

        Raises:
            EvaluatorError: if it does not, or refuses the key.
        """
        self._call("ServerLive", service_pb2.ServerLiveRequest(), timeout_s=5.0)
        return self.states()

    def serving(self) -> tuple[str | None, bool]:
        """Return the backend that serves the model, None if none does, and whether it runs on a GPU."""
        try:
            config = self.config()
        except ModelNotFound:
            return None, False
        gpu = model_config_pb2.ModelInstanceGroup.KIND_GPU
        return config.backend, any(group.kind == gpu for group in config.instance_group)

    def config(self) -> Any:
        """Return the configuration of the served model, a `ModelConfig` message.

        Raises:
            EvaluatorError: if the model is not loaded.
        """
        request = service_pb2.ModelConfigRequest(name=MODEL_NAME)
        return self._call("ModelConfig", request, timeout_s=ANSWER_TIMEOUT_S).config

    def load(self, *, config: str | None = None) -> None:
        """Make the server load the model from the repository, with its configuration or `config` (JSON).

        Raises:
            EvaluatorError: if the load failed; versions served before stay loaded if they are still selected.
        """
        request = service_pb2.RepositoryModelLoadRequest(model_name=MODEL_NAME)
        if config is not None:
            request.parameters["config"].string_param = config
        self._call("RepositoryModelLoad", request, timeout_s=LOAD_TIMEOUT_S)

    def load_until_done(self, *, within_s: float) -> bool:
        """Load with retries, because a killed server may be restarting; return whether it succeeded."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                self.load()
                return True
            except EvaluatorError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.5)

    def states(self) -> dict[int, str]:
        """Return the state of each version known to the server: `READY`, or another state and its reason."""
        index = self._call("RepositoryIndex", service_pb2.RepositoryIndexRequest(), timeout_s=ANSWER_TIMEOUT_S)
        return {
            int(model.version): " ".join(f"{model.state} {model.reason}".split())
            for model in index.models
            if model.name == MODEL_NAME and model.version.isdecimal()
        }

    def ask(self, rows: NDArray[np.uint8], *, version: int | None) -> tuple[Answers, int]:
        """Evaluate `[n, F]` rows with one version, or the current one; return the outputs and the last version used.

        Rows are sent in small batches: 4,096 rows at once delayed all other clients by 150 ms on two cores.

        Raises:
            EvaluatorError: if the evaluation failed, is not finite, or the model does not match the contract.
        """
        pinned = "" if version is None else str(version)
        with TritonEvaluator(
            self.url, model_version=pinned, request_timeout_s=ANSWER_TIMEOUT_S, server_timeout_s=0.0
        ) as evaluator:
            parts = [evaluate(evaluator, rows[i : i + _ROWS_AT_A_TIME]) for i in range(0, len(rows), _ROWS_AT_A_TIME)]
        return Answers.of_batches((part.logits, part.values) for part in parts), parts[-1].model_version

    def _call(self, method: str, request: Any, *, timeout_s: float) -> Any:
        return self.call(method, request, model=MODEL_NAME, timeout_s=timeout_s, metadata=self._key)
