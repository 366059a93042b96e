# SPDX-License-Identifier: Apache-2.0
"""Errors of exporting and publishing.

```
ExportError                   base of all errors
├── InvalidModel              the model file does not match the contract
├── InvalidPositions          there are no usable recorded positions
├── ParityFailed              two evaluations of the same network differ by more than the tolerance
├── RepositoryError           the model repository cannot be read or written, or a version is not as expected
│   └── RegistryError         the registry cannot be read
└── PublishFailed             the server did not load a version; the version was withdrawn
```
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clients.files import reason
from mcts_ext.errors import BlobError


class ExportError(BlobError):
    """Base of all errors of exporting and publishing."""


class InvalidModel(ExportError):
    """The model file does not match the contract."""


class InvalidPositions(ExportError):
    """There are no usable recorded positions."""


class ParityFailed(ExportError):
    """Two evaluations of the same network differ by more than the tolerance."""


class RepositoryError(ExportError):
    """The model repository cannot be read or written, or a version is not as expected."""


class RegistryError(RepositoryError):
    """The registry cannot be read."""


class PublishFailed(ExportError):
    """The server did not load a version; the version was withdrawn."""


@contextmanager
def writing(repository: Path) -> Iterator[None]:
    """Raise `RepositoryError` if the repository cannot be written."""
    try:
        yield
    except OSError as error:
        raise RepositoryError(
            f"expected a writable model repository with free space at {repository}, "
            f"got {reason(error)}; free space or choose another"
        ) from error
