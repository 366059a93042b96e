# SPDX-License-Identifier: Apache-2.0
"""Errors of exporting and publishing.

```
ExportError                   every error of this package
├── InvalidModel              a model file that does not fit the contract
├── InvalidPositions          no recorded positions where some were promised
├── ParityFailed              two evaluations of the same network differ by more than the tolerance
├── RepositoryError           a model repository that cannot be read or written, or a version that is not as expected
│   ├── RepositoryBusy        another process is changing it
│   └── RegistryError         its registry cannot be read
└── PublishFailed             a server that did not take a version; it was withdrawn
```
"""

from pathlib import Path

from clients.files import reason
from mcts_ext.errors import BlobError


class ExportError(BlobError):
    """Base of every error of exporting and publishing."""


class InvalidModel(ExportError):
    """A model file that does not fit the contract."""


class InvalidPositions(ExportError):
    """No recorded positions where some were promised."""


class ParityFailed(ExportError):
    """Two evaluations of the same network differ by more than the tolerance."""


class RepositoryError(ExportError):
    """A model repository that cannot be read or written, or a version that is not as expected."""


class RepositoryBusy(RepositoryError):
    """Another process is changing the repository."""


class RegistryError(RepositoryError):
    """A registry that cannot be read."""


class PublishFailed(ExportError):
    """A server that did not take a version; it was withdrawn."""


def unwritable(repository: Path, error: BaseException) -> RepositoryError:
    """The error of a repository that could not be written."""
    return RepositoryError(
        f"expected a writable model repository with room at {repository}, "
        f"got {reason(error)}; free space or name another"
    )
