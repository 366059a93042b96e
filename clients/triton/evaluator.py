# SPDX-License-Identifier: Apache-2.0
"""Ask a Triton server over gRPC: several batches in flight, deadlines, bounded repeats of what is safe to repeat.

```
submit(batch) ── parts of at most max_batch_size rows ── call ── answer ────────────── all parts, one version ── wait()
                                                          ^         └─ failure ─ pause ─┐
                                                          └────────────────────────────┘
```
gRPC's thread only puts finished calls into a queue; everything else happens in the thread that calls `wait`.
"""

import heapq
import itertools
import queue
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from clients.errors import (
    AnswerPending,
    EvaluatorClosed,
    EvaluatorError,
    RequestTimeout,
    ServerFailed,
    UnsoundAnswer,
)
from clients.evaluator import Evaluation, check_evaluation, check_observations
from clients.triton.connection import Connection, Link
from clients.triton.counts import MIXED, RequestCounts
from clients.triton.failures import Failure, classify
from clients.triton.protocol import grpc, service_pb2
from clients.triton.served_model import check_served_model
from clients.triton.wire import decode_response, encode_request
from mcts_ext.contract import INPUT_NAME, MODEL_NAME, OBSERVATION_BYTES, OUTPUTS

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_LEAST_DEADLINE_S: Final = 0.25  # for the last attempt, when the caller comes late
_CONTACT_S: Final = 5.0  # for what the server says of its model; a server that works says it at once
_PARTING_S: Final = 0.5  # how long a close lets what is in flight end
_QUIET_S: Final = 10.0  # a server that comes and goes is mentioned no more often than this


@dataclass(eq=False)
class _Batch:
    """A batch in flight."""

    tag: int
    observations: NDArray[np.uint8]
    parts: list["_Part"] = field(default_factory=list)
    is_dropped: bool = False


@dataclass(eq=False)
class _Part:
    """Some rows of a batch: one request, and its answer once there is one."""

    batch: _Batch
    rows: slice
    answer: Evaluation | None = None
    link: Link | None = None
    """The channel of its call."""
    sent_at: float = 0.0
    done_at: float = 0.0
    failing_since: float | None = None
    n_failures: int = 0


class TritonEvaluator:
    """An evaluator behind a Triton server; open it in the process that uses it.

    Args:
        url: HOST:PORT of the gRPC endpoint.
        model: the model's name.
        model_version: a fixed version; empty for the one the server thinks current.
        request_timeout_s: deadline of one request.
        server_timeout_s: how long to repeat what fails before giving up; 0 for no repeats.
        on_event: told, in one line each, that the server went away and that it is back.
        counts: where requests are counted, for whoever reports them.

    Raises:
        EvaluatorError: no server within `server_timeout_s`, or no model, or one that does not fit the contract.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = MODEL_NAME,
        model_version: str = "",
        request_timeout_s: float = 20.0,
        server_timeout_s: float = 60.0,
        on_event: Callable[[str], None] = lambda text: None,
        counts: RequestCounts | None = None,
    ) -> None:
        self._url = url
        self._model = model
        self._model_version = model_version
        self._request_timeout_s = request_timeout_s
        self._server_timeout_s = server_timeout_s
        self._on_event = on_event
        self._counts = counts or RequestCounts()
        self._request = service_pb2.ModelInferRequest(model_name=model, model_version=model_version)
        self._request.inputs.add(name=INPUT_NAME, datatype="UINT8", shape=[0, OBSERVATION_BYTES])
        for name in OUTPUTS:
            self._request.outputs.add(name=name)
        self._finished: queue.SimpleQueue[tuple[_Part, grpc.Future]] = queue.SimpleQueue()
        self._paused: list[tuple[float, int, _Part]] = []  # a heap: (when to send it again, tie-break, part)
        self._order = itertools.count()
        self._failing: set[_Part] = set()
        self._n_in_flight = 0
        self._away_since: float | None = None
        self._is_told = False
        self._told_at = float("-inf")
        self._is_closed = False
        self._connection = Connection(url)
        try:
            self.max_batch_size = self._check_model()
        except BaseException:
            self.close()
            raise

    def submit(self, observations: NDArray[np.uint8], *, tag: int) -> None:
        """See `Evaluator`. A batch over `max_batch_size` travels as several requests of about the same size."""
        check_observations(observations)
        n_rows = len(observations)
        n_parts = -(-n_rows // self.max_batch_size)
        batch = _Batch(tag, observations)
        for i in range(n_parts):
            batch.parts.append(_Part(batch, slice(i * n_rows // n_parts, (i + 1) * n_rows // n_parts)))
            self._send(batch.parts[i])
        self._n_in_flight += 1

    def wait(self, timeout_s: float | None = None) -> tuple[int, Evaluation]:
        """See `Evaluator`. What failed is sent again from here, so a caller that waits for something must call it."""
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._is_closed:
                raise _closed()
            if not self._n_in_flight:
                raise EvaluatorError("expected a batch in flight, got none; submit one before waiting")
            self._send_again()
            finished = self._next_finished(deadline)
            if finished is None or finished[0].batch.is_dropped:
                continue
            part, call = finished
            try:
                whole = self._take(part, call)
            except EvaluatorError:
                part.batch.is_dropped = True
                self._let_go(part.batch)
                raise
            if whole is not None:
                self._let_go(part.batch)
                return part.batch.tag, whole

    def _let_go(self, batch: _Batch) -> None:
        self._n_in_flight -= 1
        self._failing.difference_update(batch.parts)
        # Batch and parts refer to each other: left to the garbage collector, their answers would keep malloc from using
        # the same memory again, and a request of 512 rows would cost 100 us more.
        batch.parts.clear()

    def close(self) -> None:
        """See `Evaluator`.

        What is in flight may end first. A call that is cancelled just as it arrives, or as it is answered, kills Triton
        2.51 (issue 7368 of NVIDIA's server, mended in its pull request 7840), and with it the answers of all others.
        """
        self._is_closed = True
        until = time.monotonic() + _PARTING_S
        while self._connection.n_calls and time.monotonic() < until:
            time.sleep(0.002)
        self._connection.close()  # cancels what is left, which wakes a wait

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_model(self) -> int:
        """Compare the served model with the contract, when the server is there; the largest batch it takes."""
        request = service_pb2.ModelConfigRequest(name=self._model, version=self._model_version)
        began = time.monotonic()
        n_failures = 0
        while True:
            link, sent_at = self._connection.link, time.monotonic()
            left_s = began + self._server_timeout_s - sent_at
            try:
                answer = link.stub.ModelConfig(
                    request, timeout=min(self._request_timeout_s, _CONTACT_S, max(left_s, 1.0))
                )
            except grpc.RpcError as error:
                failure = classify(error)
                if failure.kind is RequestTimeout:
                    self._connection.unanswered(link, sent_at=sent_at)
                n_failures += 1
                pause_s = _pause_s(n_failures)
                waited_s = time.monotonic() - began
                if not failure.may_pass or waited_s + pause_s > self._server_timeout_s:
                    raise failure.error(url=self._url, model=self._model, waited_s=waited_s) from error
                self._tell_away(failure)
                time.sleep(pause_s)
            else:
                self._tell_back()
                return check_served_model(answer.config, model=self._model, url=self._url)

    def _send(self, part: _Part) -> None:
        if self._is_closed:
            raise _closed()
        deadline_s = self._request_timeout_s
        if part.failing_since is not None:
            left_s = part.failing_since + self._server_timeout_s - time.monotonic()
            deadline_s = min(deadline_s, max(left_s, _LEAST_DEADLINE_S))
        rows = part.batch.observations[part.rows]
        link = part.link = self._connection.link
        part.sent_at = time.monotonic()
        self._request.inputs[0].shape[0] = len(rows)
        try:
            call = link.infer.future(encode_request(self._request, rows), timeout=deadline_s)
        except ValueError as error:  # gRPC's word for a channel that another thread has just closed
            raise _closed() from error
        link.calls.add(part)

        def finish(done: grpc.Future) -> None:
            part.done_at = time.monotonic()  # when it came, not when the caller has time for it
            link.calls.discard(part)
            self._finished.put((part, done))

        call.add_done_callback(finish)

    def _send_again(self) -> None:
        """Send the parts whose pause is over."""
        while self._paused and self._paused[0][0] <= time.monotonic():
            part = heapq.heappop(self._paused)[2]
            if not part.batch.is_dropped:
                self._counts.sent_again()
                self._send(part)

    def _next_finished(self, deadline: float) -> tuple[_Part, grpc.Future] | None:
        """A finished call; None when a pause is over before there is one."""
        until = min(deadline, self._paused[0][0] if self._paused else float("inf"))
        timeout_s = None if until == float("inf") else max(until - time.monotonic(), 0.0)
        try:
            return self._finished.get(timeout=timeout_s)
        except queue.Empty:
            if time.monotonic() >= deadline:
                raise AnswerPending("expected an answer in time, got none yet; wait again") from None
            return None

    def _take(self, part: _Part, call: Any) -> Evaluation | None:
        """Take in the end of one call; the whole batch's answer if that completes it."""
        assert part.link is not None
        if call.code() is not grpc.StatusCode.OK:
            failure = classify(call)
            if failure.kind is RequestTimeout:
                self._connection.unanswered(part.link, sent_at=part.sent_at)
            self._failed(part, failure)
            return None
        part.link.heard_at = part.done_at
        answer = part.answer = self._read(call.result(), n_rows=part.rows.stop - part.rows.start)
        self._counts.answered(part.done_at - part.sent_at)
        self._failing.discard(part)
        if not self._failing:
            self._tell_back()
        parts = part.batch.parts
        if len(parts) == 1:
            return answer
        answers = [other.answer for other in parts if other.answer is not None]
        if len(answers) < len(parts):
            return None
        # Parts that another version answered, around a swap, are asked again. The last to arrive counts rather than
        # the highest number: a swap can go back.
        stale = [i for i, other in enumerate(answers) if other.model_version != answer.model_version]
        for i in stale:
            parts[i].answer = None
            reason = f"model versions {answers[i].model_version} and {answer.model_version} within one batch"
            self._failed(parts[i], Failure(ServerFailed, reason, may_pass=True), is_mixed=True)
        if stale:
            return None
        return Evaluation(
            np.concatenate([other.logits for other in answers]),
            np.concatenate([other.values for other in answers]),
            answer.model_version,
        )

    def _failed(self, part: _Part, failure: Failure, *, is_mixed: bool = False) -> None:
        """Plan to send a part again, or raise if that can't help or has been tried for long enough."""
        self._counts.failed(MIXED if is_mixed else failure.kind.__name__)
        now = time.monotonic()
        part.failing_since = part.failing_since or now
        part.n_failures += 1
        pause_s = _pause_s(part.n_failures)
        waited_s = now - part.failing_since
        if not failure.may_pass or waited_s + pause_s > self._server_timeout_s:
            raise failure.error(url=self._url, model=self._model, waited_s=waited_s)
        if not is_mixed:  # the server is there
            self._failing.add(part)
            self._tell_away(failure)
        heapq.heappush(self._paused, (now + pause_s, next(self._order), part))

    def _read(self, data: bytes, *, n_rows: int) -> Evaluation:
        """The checked answer in a serialized ModelInferResponse; the arrays may be views of its bytes."""
        try:
            response, found = decode_response(data)
        except ValueError as error:
            raise UnsoundAnswer(
                f"expected a response of Triton's from {self._url}, got other bytes ({error}); name a Triton server"
            ) from error
        outputs = zip(response.outputs, found, strict=False)
        tensors = {output.name: array for output, array in outputs if output.datatype == "FP32"}
        arrays = []
        for name, (_, width) in OUTPUTS.items():
            size = tensors[name].size if name in tensors else 0
            if size != n_rows * width:
                raise UnsoundAnswer(
                    f"expected {name} FP32 [{n_rows}, {width}] from {self._url}, got {size} numbers of that type; "
                    "publish a network of this contract (blobzero publish)"
                )
            arrays.append(tensors[name].reshape(n_rows, width))
        version = int(response.model_version) if response.model_version.isdecimal() else 0
        answer = Evaluation(arrays[0], arrays[1], version)
        check_evaluation(answer, n_rows=n_rows, source=f"{self._model} version {version} at {self._url}")
        return answer

    def _tell_away(self, failure: Failure) -> None:
        if self._away_since is not None:
            return
        self._away_since = time.monotonic()
        if self._away_since - self._told_at >= _QUIET_S:
            self._told_at, self._is_told = self._away_since, True
            self._on_event(
                f"{self._url} does not answer ({failure.reason}); trying again for up to {self._server_timeout_s:g} s"
            )

    def _tell_back(self) -> None:
        if self._away_since is None:
            return
        if self._is_told:
            self._on_event(f"{self._url} answers again after {time.monotonic() - self._away_since:.1f} s")
        self._away_since, self._is_told = None, False


def _pause_s(n_failures: int) -> float:
    """Doubles with every failure; random, so that clients of one server do not come back together."""
    n_doublings = min(n_failures - 1, 30)  # a thousand failures, after a quarter of an hour, are no float any more
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**n_doublings) * random.uniform(0.5, 1.0)


def _closed() -> EvaluatorClosed:
    return EvaluatorClosed("expected an open evaluator, got a closed one; open another")
