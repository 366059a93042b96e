# SPDX-License-Identifier: Apache-2.0
"""The version folders of a model repository, as Triton reads them.

```
<repository>/blobnet/config.pbtxt, configs/  config.py
<repository>/blobnet/<version>/              immutable: Triton may answer from a cache of what it loaded
             model.onnx, model.pt            one or both; which one is read, the configuration's backend says
<repository>/.incoming/, .outgoing.<version> what is being built or removed; left over when who did it was killed
<repository>/registry.json                   registry.py
```

A version folder is built aside, synced and renamed, so neither Triton nor another process sees half of one. Aside is
outside the model's folder: whatever is new in there, but for a version, makes Triton load all versions again.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from clients.files import reason, sync
from export.errors import RepositoryError, unwritable
from export.precisions import FILE_NAMES
from mcts_ext.contract import MODEL_NAME
from mcts_ext.versions import version_number

_INCOMING: Final = ".incoming"
_OUTGOING: Final = ".outgoing."


def require_repository(repository: Path) -> None:
    """Raise `RepositoryError` where there is no repository: a mistyped name must not become one."""
    if not (repository / MODEL_NAME).is_dir():
        raise RepositoryError(
            f"expected a model repository with {MODEL_NAME}/ in it, got {repository}; name another, or publish first"
        )


def versions(repository: Path, *, model: str = MODEL_NAME) -> list[int]:
    """The versions there are, oldest first; none where there is no repository."""
    folder = repository / model
    return [n for n in numbers(repository, model=model) if model_files(folder / str(n))]


def numbers(repository: Path, *, model: str = MODEL_NAME) -> list[int]:
    """The folders with a version's name, whatever they hold, in order."""
    try:
        names = [path.name for path in (repository / model).iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RepositoryError(
            f"expected a model repository at {repository}, got {reason(error)}; name another"
        ) from error
    return sorted(number for name in names if (number := version_number(name)) is not None)


def version_folder(repository: Path, version: int) -> Path:
    """Where a version is, or would be."""
    return repository / MODEL_NAME / str(version)


def model_files(folder: Path) -> list[Path]:
    """The files in a version's folder that a server can load, ONNX first."""
    return [path for name in FILE_NAMES.values() if (path := folder / name).is_file()]


def model_path(repository: Path, version: int) -> Path:
    """The file of one version that represents it: ONNX where there is one.

    Raises:
        RepositoryError: no such version.
    """
    found = model_files(version_folder(repository, version))
    if not found:
        known = ", ".join(map(str, versions(repository))) or "none"
        raise RepositoryError(f"expected a version of {known}, got {version}, which {repository} does not have")
    return found[0]


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the model files of a version's folder, by name."""
    hashes = {}
    for path in model_files(folder):
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


@contextmanager
def incoming(repository: Path) -> Iterator[Path]:
    """An empty folder to build the next version in, beside the others; it is gone afterwards, whatever happens."""
    folder = repository / _INCOMING
    try:
        (repository / MODEL_NAME).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder
    except OSError as error:
        raise unwritable(repository, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def gather(folder: Path, files: Mapping[str, Path]) -> Path:
    """Put model files together as a version's folder inside `folder`, synced.

    What was built there moves; other files are copied, not linked: Triton loads a version again when a link is added to
    its file, or taken away.
    """
    together = folder / "version"
    together.mkdir()
    for name, path in files.items():
        if path.is_relative_to(folder):
            path.rename(together / name)
        else:
            shutil.copyfile(path, together / name)
        sync(together / name)
    sync(together)
    return together


def rename_in(repository: Path, folder: Path, version: int) -> None:
    """Give a gathered folder its version's name.

    Raises:
        RepositoryError: there is one of that name, or the folder cannot be written.
    """
    target = version_folder(repository, version)
    if target.exists():
        raise RepositoryError(f"expected a free version, got {version}, which {repository} has; none is overwritten")
    try:
        folder.rename(target)
        sync(target.parent)
    except OSError as error:
        raise unwritable(repository, error) from error


def remove_version(repository: Path, version: int) -> None:
    """Take a version's folder out, in one step for whoever looks; harmless where there is none."""
    folder = version_folder(repository, version)
    aside = repository / f"{_OUTGOING}{version}"
    try:
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            sync(folder.parent)
    except OSError as error:
        raise unwritable(repository, error) from error
    shutil.rmtree(aside, ignore_errors=True)


def leftovers(repository: Path) -> list[Path]:
    """What killed commands left: folders half built or half removed, files half written. Ask under the lock."""
    patterns = (_INCOMING, f"{_OUTGOING}*", ".*.tmp", f"{MODEL_NAME}/**/.*.tmp")
    return sorted({path for pattern in patterns for path in repository.glob(pattern)})


def sweep(repository: Path) -> list[Path]:
    """Remove the leftovers; which."""
    found = leftovers(repository)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found
