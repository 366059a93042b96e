# SPDX-License-Identifier: Apache-2.0
"""Errors of asking the network.

```
EvaluatorError                every failure to get an evaluation; nothing was applied, the batch may be asked for again
├── ServerUnreachable         nobody answered for `server_timeout_s`
├── ServerFailed              the server answered, for so long, with nothing but failures of its own
├── RequestTimeout            the server let every deadline pass for so long
├── ModelNotFound             the server, or the disk, has no such model or version
├── ModelMismatch             the model's tensors, or its observation version, are not those of the contract
├── KeyRefused                the control API asks for a key that was not given, or for another
├── RequestRejected           the question is wrong as it stands: a repeat would not help
├── UnsoundAnswer             the answer has the wrong size, or holds NaN or infinity
├── AnswerPending             not yet: the caller's own `timeout_s` passed, everything is still in flight
└── EvaluatorClosed           the evaluator was closed, before or meanwhile
```
"""

from mcts_ext.errors import BlobError


class EvaluatorError(BlobError):
    """Base of every failure to get an evaluation."""


class ServerUnreachable(EvaluatorError):
    """Nobody answered for as long as we were told to wait."""


class ServerFailed(EvaluatorError):
    """The server answered with nothing but failures of its own for as long as we were told to wait."""


class RequestTimeout(EvaluatorError):
    """The server let every deadline pass for as long as we were told to wait."""


class ModelNotFound(EvaluatorError):
    """The server, or the disk, has no such model or version."""


class ModelMismatch(EvaluatorError):
    """The model's tensors, or its observation version, are not those of the contract."""


class KeyRefused(EvaluatorError):
    """The control API asks for a key that was not given, or for another."""


class RequestRejected(EvaluatorError):
    """The question is wrong as it stands."""


class UnsoundAnswer(EvaluatorError):
    """The answer has the wrong size, or holds NaN or infinity."""


class AnswerPending(EvaluatorError):
    """The caller's own time passed; everything is still in flight."""


class EvaluatorClosed(EvaluatorError):
    """The evaluator was closed, before or meanwhile."""
