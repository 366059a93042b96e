# SPDX-License-Identifier: Apache-2.0
"""Interface between search and network: batches of observations in, evaluations out, several in flight.

Axes: `B` rows, `F` bytes of an observation, `A` = 66 actions, `S` = 8 seats (mcts_ext/contract.py).
"""

from collections import deque
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from clients.errors import EvaluatorClosed, EvaluatorError, RequestRejected, UnsoundAnswer
from mcts_ext.contract import N_ACTIONS, N_SEATS, OBSERVATION_BYTES, OUTPUTS


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of one batch; its arrays may be read-only."""

    logits: NDArray[np.float32]
    """`[B, A]` policy, unmasked."""
    values: NDArray[np.float32]
    """`[B, S]` expected round score per relative seat / (10 + N)."""
    model_version: int
    """Model version that evaluated all rows; 0 without a network."""


class Evaluator(Protocol):
    """Evaluates positions. For use by one thread, except that another thread may close it."""

    def submit(self, observations: NDArray[np.uint8], *, tag: int) -> None:
        """Submit a batch `[B, F]`, B >= 1, C-contiguous, with a tag chosen by the caller.

        The array must not change until its evaluation has been returned.

        Raises:
            RequestRejected: if the array is not such a batch.
        """
        ...

    def wait(self, timeout_s: float | None = None) -> tuple[int, Evaluation]:
        """Return the tag and the evaluation of the first batch in flight to finish.

        Raises:
            AnswerPending: if none finished within `timeout_s`; everything is still in flight.
            EvaluatorError: if a batch failed: it is dropped, the others stay in flight.
        """
        ...

    def close(self) -> None:
        """Release all resources. A `wait` in another thread then raises EvaluatorClosed."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def evaluate(evaluator: Evaluator, observations: NDArray[np.uint8]) -> Evaluation:
    """Evaluate one batch synchronously; nothing else may be in flight."""
    evaluator.submit(observations, tag=0)
    return evaluator.wait()[1]


def check_observations(observations: NDArray[np.uint8]) -> None:
    """Raise RequestRejected unless this is a batch of observations."""
    shape = observations.shape
    if len(shape) != 2 or shape[0] < 1 or shape[1] != OBSERVATION_BYTES or observations.dtype != np.uint8:
        raise RequestRejected(
            f"expected observations [B >= 1, {OBSERVATION_BYTES}] uint8, got {list(shape)} {observations.dtype}; "
            "encode positions with mcts_ext.observe"
        )
    if not observations.flags.c_contiguous:
        raise RequestRejected(
            "expected C-contiguous observations, got non-contiguous ones; use numpy.ascontiguousarray"
        )


def check_evaluation(evaluation: Evaluation, *, n_rows: int, source: str) -> None:
    """Raise UnsoundAnswer unless this is a finite evaluation of `n_rows` rows; `source` names the model."""
    for (name, (_, width)), array in zip(OUTPUTS.items(), (evaluation.logits, evaluation.values), strict=True):
        if array.shape != (n_rows, width) or array.dtype != np.float32:
            raise UnsoundAnswer(
                f"expected {name} [{n_rows}, {width}] float32 from {source}, got {list(array.shape)} {array.dtype}; "
                "publish a network of this contract (blobzero publish)"
            )
        is_finite = np.isfinite(array)  # 5 us for 512 rows
        if not is_finite.all():
            raise UnsoundAnswer(
                f"expected finite {name} from {source}, got {np.count_nonzero(~is_finite)} of {array.size} numbers "
                "NaN or infinite; publish another network (blobzero publish)"
            )


class InProcessEvaluator(Evaluator):
    """Base of the evaluators that compute in this process: inside `wait`, in order of submission."""

    def __init__(self) -> None:
        self._submitted: deque[tuple[int, NDArray[np.uint8]]] = deque()
        self._is_closed = False

    def submit(self, observations: NDArray[np.uint8], *, tag: int) -> None:
        """See `Evaluator`."""
        if self._is_closed:
            raise EvaluatorClosed
        check_observations(observations)
        self._submitted.append((tag, observations))

    def wait(self, timeout_s: float | None = None) -> tuple[int, Evaluation]:
        """See `Evaluator`; computes synchronously and ignores `timeout_s`."""
        if self._is_closed:
            raise EvaluatorClosed
        if not self._submitted:
            raise EvaluatorError("expected a batch in flight, got none; submit one before waiting")
        tag, observations = self._submitted.popleft()
        return tag, self._evaluate(observations)

    def _evaluate(self, observations: NDArray[np.uint8]) -> Evaluation:
        """Evaluate one batch `[B, F]`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Evaluator`."""
        self._is_closed = True
        self._submitted.clear()


class UniformEvaluator(InProcessEvaluator):
    """Uniform policy, every value one half."""

    def _evaluate(self, observations: NDArray[np.uint8]) -> Evaluation:
        n = len(observations)
        return Evaluation(
            logits=np.zeros((n, N_ACTIONS), dtype=np.float32),
            values=np.full((n, N_SEATS), 0.5, dtype=np.float32),
            model_version=0,
        )


class HashEvaluator(InProcessEvaluator):
    """Pseudo-random network: every output is a fixed function of the row's bytes.

    Logits lie in [-2, 2), values in [0, 1). The outputs are bit-identical however rows are batched.
    """

    def _evaluate(self, observations: NDArray[np.uint8]) -> Evaluation:
        words = observations.view("<u8")
        row = np.zeros(len(words), dtype=np.uint64)
        for i in range(words.shape[1]):
            row = _mix(row ^ words[:, i])
        column = np.arange(1, N_ACTIONS + N_SEATS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        numbers = (_mix(row[:, None] ^ column) >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
        return Evaluation(
            logits=4 * numbers[:, :N_ACTIONS] - 2,
            values=np.ascontiguousarray(numbers[:, N_ACTIONS:]),
            model_version=0,
        )


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
