# SPDX-License-Identifier: Apache-2.0
"""Recovery of folders and registry after a killed command; the first step of every change.

| state | action |
| --- | --- |
| partially written or removed folders and files | remove them |
| `publishing` in the registry: the load was not confirmed | withdraw: remove the folder, reload the server |
| `withdrawn` or `unpublished`, but the folder exists | finish the removal |
| `published`, but the folder is missing | mark as `unpublished` |
| a version's folder that is not in the registry | register it as published, with its file's metadata |
"""

from pathlib import Path

from export.errors import InvalidModel
from export.graph import read_metadata
from export.publishing.registry import Entry, Registry, now
from export.publishing.repository import (
    file_hashes,
    model_files,
    model_path,
    numbers,
    remove_version,
    sweep,
    version_folder,
)
from export.publishing.server import ModelServer

INTERRUPTED = "the command that published it was interrupted"


def mend(repository: Path, *, key_file: Path | None = None) -> Registry:
    """Recover folders and registry, under the lock; return the registry.

    Raises:
        RepositoryError: if the folder cannot be written, or the registry cannot be read.
    """
    registry = Registry(repository)
    sweep(repository)
    for entry in list(registry):
        folder_exists = version_folder(repository, entry.version).exists()
        if entry.state == "publishing":
            withdraw(repository, registry, entry, reason=INTERRUPTED)
            _reload(entry.url, key_file)
        elif entry.state == "published" and not model_files(version_folder(repository, entry.version)):
            registry.put(entry.become("unpublished", note="its folder was gone"))
        elif entry.state != "published" and folder_exists:
            remove_version(repository, entry.version)
    for version in numbers(repository):
        if registry.get(version) is None and (adopted := _adopt(repository, version)):
            registry.put(adopted)
    return registry


def withdraw(repository: Path, registry: Registry, entry: Entry, *, reason: str) -> None:
    """Withdraw a version that is not published yet. The folder is removed first: the registry may need its space."""
    remove_version(repository, entry.version)
    registry.put(entry.become("withdrawn", note=reason))


def _adopt(repository: Path, version: int) -> Entry | None:
    """Return an entry for an unregistered folder, or None if its file does not match the contract."""
    folder = version_folder(repository, version)
    if not model_files(folder):
        return None
    try:
        properties = read_metadata(model_path(repository, version))
    except InvalidModel:
        return None
    note = "found in the repository"
    return Entry(version, "published", now(), files=file_hashes(folder), properties=properties, note=note)


def _reload(url: str | None, key_file: Path | None) -> None:
    """Make a server unload withdrawn versions, if it still runs."""
    if url is not None:
        with ModelServer(url, key_file=key_file) as server:
            server.load_until_done(within_s=0.0)
