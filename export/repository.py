# SPDX-License-Identifier: Apache-2.0
"""The model repository on disk, as Triton reads it.

```
<repository>/blobnet/config.pbtxt, configs/  config.py
<repository>/blobnet/<version>/model.onnx    immutable: Triton may answer from a cache of what it loaded
```

A version folder is written aside, synced and renamed, so neither Triton nor another process sees half of one.
"""

import errno
import itertools
import os
import shutil
from pathlib import Path
from typing import Final

from export.errors import RepositoryError, unwritable
from mcts_ext.contract import MODEL_NAME
from training.files import sync

MODEL_FILE: Final = "model.onnx"


def versions(repository: Path, *, model: str = MODEL_NAME) -> list[int]:
    """The versions there are, oldest first; none where there is no repository."""
    try:
        names = [path.name for path in (repository / model).iterdir() if (path / MODEL_FILE).is_file()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RepositoryError(f"expected a model repository, got {error}; name another folder") from error
    return sorted(int(name) for name in names if name.isdecimal())


def model_path(repository: Path, version: int, *, model: str = MODEL_NAME) -> Path:
    """The file of one version."""
    return repository / model / str(version) / MODEL_FILE


def publish_version(repository: Path, onnx_file: Path, *, version: int | None = None) -> int:
    """Copy `onnx_file` in as a new version: by default the one after the latest.

    Raises:
        RepositoryError: the version exists, or the folder cannot be written; nothing new is under a version's name.
    """
    folder = repository / MODEL_NAME
    aside = folder / f".incoming.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        shutil.copyfile(onnx_file, aside / MODEL_FILE)
        sync(aside / MODEL_FILE)
        sync(aside)
        return _rename_in(repository, aside, version)
    except OSError as error:
        raise unwritable(repository, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def withdraw_version(repository: Path, version: int) -> None:
    """Take a version out again, in one step for whoever looks."""
    folder = repository / MODEL_NAME
    aside = folder / f".withdrawn.{version}.{os.getpid()}"
    try:
        (folder / str(version)).rename(aside)
        sync(folder)
    except OSError as error:
        raise unwritable(repository, error) from error
    shutil.rmtree(aside, ignore_errors=True)


def _rename_in(repository: Path, aside: Path, version: int | None) -> int:
    """Give the folder its version's name; by default the first free one, whoever else publishes meanwhile."""
    first_free = max(versions(repository), default=0) + 1
    for wanted in itertools.count(first_free) if version is None else [version]:
        try:
            aside.rename(aside.with_name(str(wanted)))  # fails where a folder with files has that name
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            sync(aside.parent)
            return wanted
    raise RepositoryError(
        f"expected a free version, got {version}, which {repository} has; versions are never overwritten"
    )
