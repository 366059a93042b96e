# SPDX-License-Identifier: Apache-2.0
"""Errors of evaluators. `classify` (clients/triton/failures.py) chooses among those of a server."""

from mcts_ext.errors import BlobError


class EvaluatorError(BlobError):
    """Base of all evaluator errors; nothing was applied, the batch may be submitted again."""


class ServerUnreachable(EvaluatorError):
    """No connection to the server for `server_timeout_s`."""


class ServerFailed(EvaluatorError):
    """Every response was a server-side error for `server_timeout_s`."""


class RequestTimeout(EvaluatorError):
    """Every request exceeded its deadline for `server_timeout_s`."""


class ModelNotFound(EvaluatorError):
    """The model or version does not exist on the server or on disk."""


class ModelMismatch(EvaluatorError):
    """The model's tensors or observation version do not match the contract."""


class KeyRefused(EvaluatorError):
    """The control API requires a key, and none or a wrong one was sent."""


class RequestRejected(EvaluatorError):
    """The request is invalid; a retry would not help."""


class UnsoundAnswer(EvaluatorError):
    """The response has the wrong size, or contains NaN or infinity."""


class AnswerPending(EvaluatorError):
    """No response within the caller's `timeout_s`; everything is still in flight."""


class EvaluatorClosed(EvaluatorError):
    """The evaluator was closed before or during the call."""

    def __init__(self) -> None:
        super().__init__("expected an open evaluator, got a closed one; open another")
