# SPDX-License-Identifier: Apache-2.0
"""Ask a running server whether it works: one real inference, and how much it has done.

Triton's own readiness isn't enough: with its backend process dead, a model still reads READY.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from mcts_ext import contract
from serving.errors import BackendDead, ProbeFailed, ProbeTimeout, ServerUnreachable


def sample_observation() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """One plausible row `[1, F]`: four players, five cards in hand, spades trump, nobody has bid."""
    row = np.zeros((1, contract.OBSERVATION_BYTES), np.uint8)
    row[0, contract.AT_N_PLAYERS] = 4
    row[0, contract.AT_N_CARDS] = 5
    row[0, contract.AT_DEALER] = 3
    row[0, contract.AT_BIDS : contract.AT_BIDS + 4] = contract.BID_PENDING
    row[0, contract.AT_BIDS + 4 : contract.AT_BIDS + contract.N_SEATS] = contract.BID_NO_SEAT
    row[0, contract.AT_CARDS : contract.AT_CARDS + 5] = contract.CARD_OWN
    return row


_UNANSWERED: Final = ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNAVAILABLE")
CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),  # else http_proxy and its like send even loopback to the proxy
)


class Probe:
    """A connection to one server for questions about its health, one at a time.

    After a question without an answer the next one has a new channel: the old one may be dead without a word, and gRPC
    without its event engine (clients/channel.py) tries one that was refused again only in 10 s.
    """

    def __init__(self, url: str, *, model: str) -> None:
        self.model = model
        self._url = url
        self._is_closed = False
        self._client = self._connect()
        self._lock = threading.Lock()  # so a channel that is given up has no call under way
        source = triton.InferInput(contract.INPUT_NAME, [1, contract.OBSERVATION_BYTES], "UINT8")
        source.set_data_from_numpy(sample_observation())
        self._inputs = [source]
        self._outputs = [triton.InferRequestedOutput(n) for n in (contract.POLICY_NAME, contract.VALUE_NAME)]

    def infer(self, *, timeout_s: float) -> None:
        """Evaluate one row and check the answer.

        Raises:
            ServerUnreachable, ProbeTimeout, ProbeFailed: what its name says.
        """
        with self._asking() as client:
            answer = client.infer(self.model, self._inputs, outputs=self._outputs, client_timeout=timeout_s)
        for name, width in ((contract.POLICY_NAME, contract.N_ACTIONS), (contract.VALUE_NAME, contract.N_SEATS)):
            numbers = answer.as_numpy(name)
            if numbers is None or numbers.shape != (1, width) or not np.isfinite(numbers).all():
                got = "none" if numbers is None else f"{list(numbers.shape)}, finite: {np.isfinite(numbers).all()}"
                raise ProbeFailed(f"expected {name} [1, {width}] of finite numbers, got {got}; export the model again")

    def n_executions(self, *, timeout_s: float) -> int:
        """How many batches the server has run: a server that is only busy makes progress."""
        with self._asking() as client:
            reply = client.get_inference_statistics(self.model, client_timeout=timeout_s)
        return sum(int(version.execution_count) for version in reply.model_stats)

    def close(self) -> None:
        """Close the connection."""
        self._is_closed = True
        self._client.close()

    def _connect(self) -> Any:
        return triton.InferenceServerClient(self._url, channel_args=list(CHANNEL_OPTIONS))

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        with self._lock, _typed_errors():
            try:
                yield self._client
            except InferenceServerException as error:
                if str(error.status()) in _UNANSWERED and not self._is_closed:
                    self._client.close()
                    self._client = self._connect()
                raise


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except InferenceServerException as error:
        status, message = (
            str(error.status()),
            " ".join(str(error.message()).removeprefix("[request id: <id_unknown>] ").split()),
        )
        if status == "StatusCode.DEADLINE_EXCEEDED":
            raise ProbeTimeout("no answer within the deadline") from error
        if status in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"):  # nobody listens, or it is stopping
            raise ServerUnreachable(message) from error
        if "Stub process" in message and "is not healthy" in message:
            raise BackendDead(message) from error
        raise ProbeFailed(message) from error
