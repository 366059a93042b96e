# SPDX-License-Identifier: Apache-2.0
"""Errors of evaluators.

```
EvaluatorError                base of all errors; nothing was applied, the batch may be submitted again
├── ServerUnreachable         no connection to the server for `server_timeout_s`
├── ServerFailed              every response was a server-side error for `server_timeout_s`
├── RequestTimeout            every request exceeded its deadline for `server_timeout_s`
├── ModelNotFound             the model or version does not exist on the server or on disk
├── ModelMismatch             the model's tensors or observation version do not match the contract
├── KeyRefused                the control API requires a key, and none or a wrong one was sent
├── RequestRejected           the request is invalid; a retry would not help
├── UnsoundAnswer             the response has the wrong size, or contains NaN or infinity
├── AnswerPending             no response within the caller's `timeout_s`; everything is still in flight
└── EvaluatorClosed           the evaluator was closed before or during the call
```
"""

from mcts_ext.errors import BlobError


class EvaluatorError(BlobError):
    """Base of all evaluator errors."""


class ServerUnreachable(EvaluatorError):
    """No connection to the server within the configured time."""


class ServerFailed(EvaluatorError):
    """Every response within the configured time was a server-side error."""


class RequestTimeout(EvaluatorError):
    """Every request within the configured time exceeded its deadline."""


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
    """No response within the caller's timeout; everything is still in flight."""


class EvaluatorClosed(EvaluatorError):
    """The evaluator was closed before or during the call."""
