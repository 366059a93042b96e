# SPDX-License-Identifier: Apache-2.0
"""Version folders of a model repository, as read by Triton.

```
<repository>/blobnet/config.pbtxt, configs/  config.py
<repository>/blobnet/<version>/              immutable, since Triton keeps the loaded version in memory
             model.onnx, model.pt            one or both; the configuration's backend determines which is read
<repository>/.incoming/, .outgoing.<version> being built or removed; left over if the command was killed
<repository>/registry.json                   registry.py
```

A version folder is built in `.incoming`, synced and renamed, so that a partial one is never visible. `.incoming` is
outside the model's folder, where any new file other than a version makes Triton reload all versions.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from clients.files import reason, sync
from export.errors import RepositoryError, writing
from export.precisions import FILE_NAMES
from mcts_ext.contract import MODEL_NAME
from mcts_ext.versions import version_number

_INCOMING: Final = ".incoming"
_OUTGOING: Final = ".outgoing."


def require_repository(repository: Path) -> None:
    """Raise `RepositoryError` if there is no repository, for example after a typo."""
    if not (repository / MODEL_NAME).is_dir():
        raise RepositoryError(
            f"expected a model repository with {MODEL_NAME}/ in it, got {repository}; choose another, or publish first"
        )


def versions(repository: Path) -> list[int]:
    """Return the versions with a model file, oldest first; empty without a repository."""
    return [n for n in numbers(repository) if model_files(version_folder(repository, n))]


def numbers(repository: Path) -> list[int]:
    """Return the numbers of all folders named like a version, whatever they contain, ascending."""
    try:
        names = [path.name for path in (repository / MODEL_NAME).iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RepositoryError(
            f"expected a model repository at {repository}, got {reason(error)}; choose another"
        ) from error
    return sorted(number for name in names if (number := version_number(name)) is not None)


def version_folder(repository: Path, version: int) -> Path:
    """Return the folder of a version, which need not exist."""
    return repository / MODEL_NAME / str(version)


def model_files(folder: Path) -> list[Path]:
    """Return the model files in a version's folder, ONNX first."""
    return [path for name in FILE_NAMES.values() if (path := folder / name).is_file()]


def model_path(repository: Path, version: int) -> Path:
    """Return the first model file of a version.

    Raises:
        RepositoryError: if there is no such version.
    """
    files = model_files(version_folder(repository, version))
    if not files:
        known = ", ".join(map(str, versions(repository))) or "none"
        raise RepositoryError(f"expected a version of {known}, got {version}, which {repository} does not have")
    return files[0]


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the model files in a version's folder, by name."""
    hashes = {}
    for path in model_files(folder):
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


@contextmanager
def incoming(repository: Path) -> Iterator[Path]:
    """Create an empty folder in which to build the next version; it is removed afterwards."""
    folder = repository / _INCOMING
    try:
        with writing(repository):
            (repository / MODEL_NAME).mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def gather(folder: Path, files: Mapping[str, Path]) -> Path:
    """Assemble model files into a version's folder inside `folder`, synced.

    Files inside `folder` are moved; others are copied, not linked: Triton reloads a version when the link count of its
    file changes.
    """
    assembled = folder / "version"
    assembled.mkdir()
    for name, path in files.items():
        if path.is_relative_to(folder):
            path.rename(assembled / name)
        else:
            shutil.copyfile(path, assembled / name)
        sync(assembled / name)
    sync(assembled)
    return assembled


def rename_in(repository: Path, folder: Path, version: int) -> None:
    """Rename an assembled folder to its version number.

    Raises:
        RepositoryError: if the version exists, or the folder cannot be written.
    """
    target = version_folder(repository, version)
    if target.exists():
        raise RepositoryError(f"expected an unused version, got {version}, which {repository} has; publish again")
    with writing(repository):
        folder.rename(target)
        sync(target.parent)


def remove_version(repository: Path, version: int) -> None:
    """Remove a version's folder atomically, if it exists."""
    folder = version_folder(repository, version)
    outgoing = repository / f"{_OUTGOING}{version}"
    with writing(repository):
        if folder.exists():
            shutil.rmtree(outgoing, ignore_errors=True)
            folder.rename(outgoing)
            sync(folder.parent)
    shutil.rmtree(outgoing, ignore_errors=True)


def leftovers(repository: Path) -> list[Path]:
    """Return the partial folders and files of killed commands; call it under the lock."""
    patterns = (_INCOMING, f"{_OUTGOING}*", ".*.tmp", f"{MODEL_NAME}/**/.*.tmp")
    return sorted({path for pattern in patterns for path in repository.glob(pattern)})


def remove_leftover(path: Path) -> None:
    """Remove one of the `leftovers`."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
