# SPDX-License-Identifier: Apache-2.0
"""Bring folders and registry back together after a command that was killed: the first step of each that changes them.

| found | done |
| --- | --- |
| folders and files half written or half removed | removed |
| `publishing` in the registry: the server was never seen to take it | withdrawn: folder removed, server told |
| `withdrawn` or `unpublished`, but the folder is there | the removal is finished |
| `published`, but the folder is gone | `unpublished` |
| a version's folder that the registry does not know | entered as published, with what its file says |
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
    """Mend what can be; call it under the lock. The registry, as it is afterwards.

    Raises:
        RepositoryError: the folder cannot be written, or the registry read.
    """
    registry = Registry(repository)
    sweep(repository)
    for entry in list(registry):
        folder_is_there = version_folder(repository, entry.version).exists()
        if entry.state == "publishing":
            withdraw(repository, registry, entry, reason=INTERRUPTED)
            _tell(entry.url, key_file)
        elif entry.state == "published" and not model_files(version_folder(repository, entry.version)):
            registry.put(entry.become("unpublished", note="its folder was gone"))
        elif entry.state != "published" and folder_is_there:
            remove_version(repository, entry.version)
    for version in numbers(repository):
        if registry.get(version) is None and (found := _adopt(repository, version)):
            registry.put(found)
    return registry


def withdraw(repository: Path, registry: Registry, entry: Entry, *, reason: str) -> None:
    """Take a version back that was not published yet. The folder goes first: that makes room for the registry."""
    remove_version(repository, entry.version)
    registry.put(entry.become("withdrawn", note=reason))


def _adopt(repository: Path, version: int) -> Entry | None:
    """An entry for a folder that came in by another way; none where its file does not fit the contract."""
    folder = version_folder(repository, version)
    if not model_files(folder):
        return None
    try:
        properties = read_metadata(model_path(repository, version))
    except InvalidModel:
        return None
    note = "found in the repository"
    return Entry(version, "published", now(), files=file_hashes(folder), properties=properties, note=note)


def _tell(url: str | None, key_file: Path | None) -> None:
    """Let a server drop what was withdrawn, if it still is there."""
    if url is not None:
        with ModelServer(url, key_file=key_file) as server:
            server.load_until_done(within_s=0.0)
