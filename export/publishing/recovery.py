# SPDX-License-Identifier: Apache-2.0
"""What killed commands leave behind, and its repair, which is the first step of every change.

| state | repair |
| --- | --- |
| partially written or removed folders and files | remove them |
| `publishing` in the registry: the load was not confirmed | withdraw: remove the folder, reload the server |
| `published`, but the model is missing | mark as `unpublished` |
| `withdrawn` or `unpublished`, but the folder exists | finish the removal |
| a version's folder that is not in the registry | register it as published, with its file's metadata |

`mend` repairs what `faults` finds; `blobzero doctor` only shows it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from export.errors import ExportError
from export.graph import read_metadata
from export.publishing.registry import Entry, Registry, now
from export.publishing.repository import (
    file_hashes,
    leftovers,
    model_files,
    model_path,
    numbers,
    remove_leftover,
    remove_version,
    version_folder,
)
from export.publishing.server import ModelServer

INTERRUPTED = "the command that published it was interrupted"


def faults(
    repository: Path, registry: Registry, *, key_file: Path | None = None
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each state of the table that is found: its description, and its repair, to be called under the lock."""
    for path in leftovers(repository):
        yield f"{path} was left by a command that was killed", partial(remove_leftover, path)
    for entry in list(registry):
        folder, named = version_folder(repository, entry.version), f"version {entry.version}"
        missing = f"{named} is {entry.state} in the registry, but has no folder"
        if entry.state == "publishing":
            what = f"{named} was being published when its command was killed" if folder.exists() else missing
            yield what, partial(_take_back, repository, registry, entry, key_file)
        elif entry.state == "published" and not model_files(folder):
            what = f"{folder} contains no model" if folder.exists() else missing
            yield what, partial(registry.put, entry.become("unpublished", note="its folder was gone"))
        elif entry.state != "published" and folder.exists():
            what = f"{named} is {entry.state} in the registry, but its folder is there"
            yield what, partial(remove_version, repository, entry.version)
    for number in numbers(repository):
        if registry.get(number) is None and (found := _registered(repository, number)):
            yield f"version {number} is not in the registry", partial(registry.put, found)


def mend(repository: Path, *, key_file: Path | None = None) -> Registry:
    """Repair all faults, under the lock; return the registry.

    Raises:
        RepositoryError: if the folder cannot be written, or the registry cannot be read.
    """
    registry = Registry(repository)
    for _, repair in faults(repository, registry, key_file=key_file):
        repair()
    return registry


def withdraw(repository: Path, registry: Registry, entry: Entry, *, reason: str) -> None:
    """Withdraw a version that is not published yet. The folder is removed first: the registry may need its space."""
    remove_version(repository, entry.version)
    registry.put(entry.become("withdrawn", note=reason))


def _take_back(repository: Path, registry: Registry, entry: Entry, key_file: Path | None) -> None:
    """Withdraw a version whose command was killed, and make its server unload it, if that still runs."""
    withdraw(repository, registry, entry, reason=INTERRUPTED)
    if entry.url is not None:
        with ModelServer(entry.url, key_file=key_file) as server:
            server.load_until_done(within_s=0.0)


def _registered(repository: Path, version: int) -> Entry | None:
    """Return an entry for an unregistered folder, or None if it holds no model of the contract."""
    try:
        properties = read_metadata(model_path(repository, version))
    except ExportError:
        return None
    hashes = file_hashes(version_folder(repository, version))
    return Entry(version, "published", now(), files=hashes, properties=properties, note="found in the repository")
