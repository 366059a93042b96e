# SPDX-License-Identifier: Apache-2.0
"""Evaluator on a Triton server over gRPC: several batches in flight, deadlines, bounded retries.

```
submit(batch) ── parts of at most max_batch_size rows ── call ── response ──────────── all parts, one version ── wait()
                                                          ^         └─ failure ─ backoff ┐
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
from typing import Any, Final

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
from clients.evaluator import Evaluation, Evaluator, check_evaluation, check_observations
from clients.triton.connection import Connection, Link
from clients.triton.counts import MIXED, RequestCounts
from clients.triton.failures import Failure, classify
from clients.triton.protocol import grpc, service_pb2
from clients.triton.served_model import check_served_model
from clients.triton.wire import decode_response, encode_request
from mcts_ext.contract import INPUT_NAME, MODEL_NAME, OBSERVATION_BYTES, OUTPUTS

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_LEAST_DEADLINE_S: Final = 0.25  # of the last attempt, if the caller is late
_METADATA_TIMEOUT_S: Final = 5.0  # of the model configuration, which a healthy server returns at once
_CLOSE_TIMEOUT_S: Final = 0.5  # how long `close` waits for calls in flight
_NOTICE_INTERVAL_S: Final = 10.0  # minimum time between two notices about a flapping server


@dataclass(eq=False)
class _Batch:
    """Batch in flight."""

    tag: int
    observations: NDArray[np.uint8]
    parts: list["_Part"] = field(default_factory=list)
    is_dropped: bool = False


@dataclass(eq=False)
class _Part:
    """Rows of a batch sent in one request, and their evaluation."""

    batch: _Batch
    rows: slice
    answer: Evaluation | None = None
    link: Link | None = None
    """Channel of the last call."""
    sent_at: float = 0.0
    done_at: float = 0.0
    failing_since: float | None = None
    n_failures: int = 0


class TritonEvaluator(Evaluator):
    """Evaluator on a Triton server; create it in the process that uses it.

    Args:
        model_version: fixed version; empty for the server's latest.
        request_timeout_s: deadline of one request.
        server_timeout_s: how long to retry a failing request; 0 disables retries.
        on_event: called with one line when the server becomes unavailable and when it is back.
        counts: counters of requests.

    Raises:
        EvaluatorError: if there is no server within `server_timeout_s`, or the model is missing or does not match the
            contract.
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
        self._counts = RequestCounts() if counts is None else counts
        self._request = service_pb2.ModelInferRequest(model_name=model, model_version=model_version)
        self._request.inputs.add(name=INPUT_NAME, datatype="UINT8", shape=[0, OBSERVATION_BYTES])
        for name in OUTPUTS:
            self._request.outputs.add(name=name)
        self._finished: queue.SimpleQueue[tuple[_Part, grpc.Future]] = queue.SimpleQueue()
        self._paused: list[tuple[float, int, _Part]] = []  # heap of (time of the retry, tie-break, part)
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
        """See `Evaluator`. A batch larger than `max_batch_size` is split into requests of about equal size."""
        check_observations(observations)
        n_rows = len(observations)
        n_parts = -(-n_rows // self.max_batch_size)
        batch = _Batch(tag, observations)
        for i in range(n_parts):
            batch.parts.append(_Part(batch, slice(i * n_rows // n_parts, (i + 1) * n_rows // n_parts)))
            self._send(batch.parts[i])
        self._n_in_flight += 1

    def wait(self, timeout_s: float | None = None) -> tuple[int, Evaluation]:
        """See `Evaluator`. Retries are sent from here, so the caller must keep calling it."""
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._is_closed:
                raise EvaluatorClosed
            if not self._n_in_flight:
                raise EvaluatorError("expected a batch in flight, got none; submit one before waiting")
            self._send_retries()
            finished = self._next_finished(deadline)
            if finished is None or finished[0].batch.is_dropped:
                continue
            part, call = finished
            try:
                evaluation = self._on_finished(part, call)
            except EvaluatorError:
                part.batch.is_dropped = True
                self._release(part.batch)
                raise
            if evaluation is not None:
                self._release(part.batch)
                return part.batch.tag, evaluation

    def _release(self, batch: _Batch) -> None:
        self._n_in_flight -= 1
        self._failing.difference_update(batch.parts)
        # Break the reference cycle of batch and parts: until the garbage collector ran, malloc could not reuse their
        # memory, and a request of 512 rows would cost 100 us more.
        batch.parts.clear()

    def close(self) -> None:
        """See `Evaluator`.

        Waits briefly for calls in flight: a call cancelled as it arrives or completes crashes Triton 2.51 (issue 7368
        of triton-inference-server/server, fixed in pull request 7840), and the calls of all other clients fail.
        """
        self._is_closed = True
        until = time.monotonic() + _CLOSE_TIMEOUT_S
        while self._connection.n_calls and time.monotonic() < until:
            time.sleep(0.002)
        self._connection.close()  # cancels the remaining calls, which wakes up `wait`

    def _check_model(self) -> int:
        """Wait for the server, check its model against the contract and return its maximum batch size."""
        request = service_pb2.ModelConfigRequest(name=self._model, version=self._model_version)
        began = time.monotonic()
        n_failures = 0
        while True:
            link, sent_at = self._connection.link, time.monotonic()
            left_s = began + self._server_timeout_s - sent_at
            try:
                response = link.stub.ModelConfig(
                    request, timeout=min(self._request_timeout_s, _METADATA_TIMEOUT_S, max(left_s, 1.0))
                )
            except grpc.RpcError as error:
                failure = classify(error)
                if failure.kind is RequestTimeout:
                    self._connection.unanswered(link, sent_at=sent_at)
                n_failures += 1
                pause_s = self._pause_after(failure, n_failures=n_failures, since=began)
                self._report_outage(failure)
                time.sleep(pause_s)
            else:
                self._report_recovery()
                return check_served_model(response.config, model=self._model, url=self._url)

    def _send(self, part: _Part) -> None:
        if self._is_closed:
            raise EvaluatorClosed
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
        except ValueError as error:  # another thread has just closed the channel
            raise EvaluatorClosed from error
        link.calls.add(part)

        def finish(done: grpc.Future) -> None:
            part.done_at = time.monotonic()  # the time of arrival, not of the caller's next `wait`
            link.calls.discard(part)
            self._finished.put((part, done))

        call.add_done_callback(finish)

    def _send_retries(self) -> None:
        """Send the parts whose backoff is over."""
        while self._paused and self._paused[0][0] <= time.monotonic():
            part = heapq.heappop(self._paused)[2]
            if not part.batch.is_dropped:
                self._counts.sent_again()
                self._send(part)

    def _next_finished(self, deadline: float) -> tuple[_Part, grpc.Future] | None:
        """Return a finished call, or None if a backoff ends first."""
        until = min(deadline, self._paused[0][0] if self._paused else float("inf"))
        timeout_s = None if until == float("inf") else max(until - time.monotonic(), 0.0)
        try:
            return self._finished.get(timeout=timeout_s)
        except queue.Empty:
            if time.monotonic() >= deadline:
                raise AnswerPending("expected a response in time, got none yet; wait again") from None
            return None

    def _on_finished(self, part: _Part, call: Any) -> Evaluation | None:
        """Handle a finished call; return the evaluation of the batch if it is complete."""
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
            self._report_recovery()
        parts = part.batch.parts
        if len(parts) == 1:
            return answer
        answers = [each.answer for each in parts if each.answer is not None]
        if len(answers) < len(parts):
            return None
        # Parts evaluated by another version during a swap are sent again. The version of the last response counts, not
        # the highest: a rollback lowers it.
        stale = [i for i, each in enumerate(answers) if each.model_version != answer.model_version]
        for i in stale:
            parts[i].answer = None
            reason = f"model versions {answers[i].model_version} and {answer.model_version} within one batch"
            self._failed(parts[i], Failure(ServerFailed, reason, may_pass=True), is_mixed=True)
        if stale:
            return None
        return Evaluation(
            np.concatenate([each.logits for each in answers]),
            np.concatenate([each.values for each in answers]),
            answer.model_version,
        )

    def _failed(self, part: _Part, failure: Failure, *, is_mixed: bool = False) -> None:
        """Schedule a retry of a part, or raise if a retry cannot help or the time is up."""
        self._counts.failed(MIXED if is_mixed else failure.kind.__name__)
        now = time.monotonic()
        part.failing_since = part.failing_since or now
        part.n_failures += 1
        pause_s = self._pause_after(failure, n_failures=part.n_failures, since=part.failing_since)
        if not is_mixed:  # then the server does respond
            self._failing.add(part)
            self._report_outage(failure)
        heapq.heappush(self._paused, (now + pause_s, next(self._order), part))

    def _pause_after(self, failure: Failure, *, n_failures: int, since: float) -> float:
        """Return the backoff before the next attempt; raise if a retry cannot help or the time is up."""
        pause_s, waited_s = _pause_s(n_failures), time.monotonic() - since
        if not failure.may_pass or waited_s + pause_s > self._server_timeout_s:
            raise failure.error(url=self._url, model=self._model, waited_s=waited_s)
        return pause_s

    def _read(self, data: bytes, *, n_rows: int) -> Evaluation:
        """Decode and check a serialized ModelInferResponse; the arrays may be views of its bytes."""
        try:
            response, contents = decode_response(data)
        except ValueError as error:
            raise UnsoundAnswer(
                f"expected a ModelInferResponse from {self._url}, got other bytes ({error}); use a Triton server"
            ) from error
        outputs = zip(response.outputs, contents, strict=False)
        tensors = {output.name: array for output, array in outputs if output.datatype == "FP32"}
        arrays = []
        for name, (_, width) in OUTPUTS.items():
            array = tensors.get(name, np.empty(0, np.float32))
            # One of another size stays flat, and fails the check.
            arrays.append(array.reshape(n_rows, width) if array.size == n_rows * width else array)
        version = int(response.model_version) if response.model_version.isdecimal() else 0
        answer = Evaluation(arrays[0], arrays[1], version)
        check_evaluation(answer, n_rows=n_rows, source=f"{self._model} version {version} at {self._url}")
        return answer

    def _report_outage(self, failure: Failure) -> None:
        if self._away_since is not None:
            return
        self._away_since = time.monotonic()
        if self._away_since - self._told_at >= _NOTICE_INTERVAL_S:
            self._told_at, self._is_told = self._away_since, True
            self._on_event(
                f"{self._url} does not answer ({failure.reason}); retrying for up to {self._server_timeout_s:g} s"
            )

    def _report_recovery(self) -> None:
        if self._away_since is None:
            return
        if self._is_told:
            self._on_event(f"{self._url} answers again after {time.monotonic() - self._away_since:.1f} s")
        self._away_since, self._is_told = None, False


def _pause_s(n_failures: int) -> float:
    """Return the backoff: exponential, with jitter so that the clients of a server do not retry in step."""
    n_doublings = min(n_failures - 1, 30)  # 2.0**1024 overflows
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**n_doublings) * random.uniform(0.5, 1.0)
