# SPDX-License-Identifier: Apache-2.0
"""Errors of the embedded server.

```
ServingError                  base of all errors
├── ServerNotInstalled        a file of Triton, or a library it needs, is missing on this machine
├── ModelNotServable          the repository has no such model, configuration or version
├── PortTaken                 a configured port is in use
├── ServerStartFailed         Triton exited, or was not ready in time; the message quotes its log
└── ProbeFailed               an inference on the running server failed
    ├── BackendDead           ... its backend (stub) process is dead or hangs; Triton does not restart it
    ├── ProbeTimeout          ... no response within the deadline
    └── ProbeUnreachable      ... no connection
```
"""

from mcts_ext.errors import BlobError


class ServingError(BlobError):
    """Base of all errors of the embedded server."""


class ServerNotInstalled(ServingError):
    """A file of Triton, or a library it needs, is missing on this machine."""


class ModelNotServable(ServingError):
    """The repository has no such model, configuration or version."""


class PortTaken(ServingError):
    """A configured port is in use."""


class ServerStartFailed(ServingError):
    """Triton exited, or was not ready in time."""


class ProbeFailed(ServingError):
    """An inference on the running server failed."""


class BackendDead(ProbeFailed):
    """A backend (stub) process is dead or hangs."""


class ProbeTimeout(ProbeFailed):
    """No response within the deadline."""


class ProbeUnreachable(ProbeFailed):
    """No connection to the server."""
