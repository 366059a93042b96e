# SPDX-License-Identifier: Apache-2.0
"""Errors of the embedded server.

```
ServingError                  every error of this package
├── ServerNotInstalled        a piece of Triton, or the Python library it needs, is missing on this machine
├── ModelNotFound             the repository has no such model, configuration or version
├── PortTaken                 a port asked for is in use
├── ServerFailed              Triton ended, or isn't ready in time; the text says what its log says
└── ProbeFailed               a real inference on the running server failed
    ├── BackendDead           ... its backend (stub) process is dead or hangs; Triton won't start another
    ├── ProbeTimeout          ... no answer within its deadline
    └── ServerUnreachable     ... nobody listens
```
"""

from mcts_ext.errors import BlobError


class ServingError(BlobError):
    """Base of every error of the embedded server."""


class ServerNotInstalled(ServingError):
    """A piece of Triton, or the Python library it needs, is missing on this machine."""


class ModelNotFound(ServingError):
    """The repository has no such model, configuration or version."""


class PortTaken(ServingError):
    """A port asked for is in use."""


class ServerFailed(ServingError):
    """Triton ended, or isn't ready in time."""


class ProbeFailed(ServingError):
    """A real inference on the running server failed."""


class BackendDead(ProbeFailed):
    """A backend (stub) process is dead or hangs."""


class ProbeTimeout(ProbeFailed):
    """No answer within the deadline."""


class ServerUnreachable(ProbeFailed):
    """Nobody listens."""
