# SPDX-License-Identifier: Apache-2.0
"""Registry of versions: when and from which checkpoint each was published, its parity, and its state.

The registry is one JSON file, `<repository>/registry.json`, replaced atomically. Together with the version folders it
determines how to recover from a killed command (recovery.py):

```
publishing ── loaded by the server ──> published ── unpublish, --keep ──> unpublished    (folder removed)
     └─────── any failure ───────────> withdrawn                                         (folder removed)
```
Numbers are never reused. The current version is the highest published one, which a server uses by default.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from clients.files import read_json, reason, write_json
from clients.lock import is_held, sole_writer
from export.errors import RegistryError, writing
from mcts_ext.contract import MODEL_NAME
from mcts_ext.versions import LAST_VERSION

FILE: Final = "registry.json"
LOCK: Final = ".publishing.lock"

State = Literal["publishing", "published", "withdrawn", "unpublished", "unregistered"]
"""State of a version; `unregistered` is never written: it denotes a folder without an entry."""


_WRITTEN: Final = tuple(state for state in get_args(State) if state != "unregistered")


@dataclass(frozen=True)
class Entry:
    """Entry of one version."""

    version: int
    state: State
    at: str = ""
    """Time of entering this state, local time with UTC offset."""
    source: str = ""
    """Checkpoint, or another description of the network's origin."""
    same_as: int | None = None
    """Version restored by this one, after a rollback."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file in the folder."""
    properties: dict[str, str] = field(default_factory=dict)
    """Metadata of the exported file: hash of the weights, step, commit, precision."""
    parity: dict[str, float] = field(default_factory=dict)
    """Parity of the file against PyTorch in float32."""
    served: dict[str, float] | None = None
    """Parity of the server against the reference; None without a server."""
    url: str | None = None
    """Server that loaded it."""
    note: str = ""
    """Why it was withdrawn, or how it was registered."""

    def become(self, state: State, *, note: str = "") -> "Entry":
        """Return the entry in another state, entered now."""
        return replace(self, state=state, at=now(), note=note or self.note)

    @property
    def origin(self) -> int:
        """Version in which this network was first published."""
        return self.same_as or self.version


class Registry:
    """Entries of one repository in memory; `put` also writes them to disk."""

    def __init__(self, repository: Path) -> None:
        self.path = repository / FILE
        self._entries = _read(self.path)

    def __iter__(self) -> Iterator[Entry]:
        """Iterate by version, oldest first."""
        return iter([self._entries[version] for version in sorted(self._entries)])

    def get(self, version: int) -> Entry | None:
        """Return the entry of a version, or None."""
        return self._entries.get(version)

    def published(self) -> list[int]:
        """Return the published versions, oldest first; the last is current."""
        return [entry.version for entry in self if entry.state == "published"]

    def last_number(self) -> int:
        """Return the highest number ever used; 0 before the first."""
        return max(self._entries, default=0)

    def put(self, entry: Entry) -> None:
        """Write an entry atomically.

        Raises:
            RepositoryError: if the file cannot be written; it and this object are unchanged.
        """
        after = {**self._entries, entry.version: entry}
        text = {"model": MODEL_NAME, "versions": [_plain(after[version]) for version in sorted(after)]}
        with writing(self.path.parent):
            write_json(self.path, text)
        self._entries = after


def exclusive(repository: Path) -> AbstractContextManager[None]:
    """Lock a repository for changes; raises as `sole_writer`."""
    return sole_writer(repository, lock=LOCK, advice="try again when it is done")


def is_busy(repository: Path) -> bool:
    """Return whether a process is changing the repository."""
    return is_held(repository / LOCK)


def now() -> str:
    """Return the local time to the second, with UTC offset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _plain(entry: Entry) -> dict[str, Any]:
    """Return the fields of an entry that are not empty."""
    return {key: value for key, value in asdict(entry).items() if value not in (None, "", {})}


def _entry(fields: Any) -> Entry:
    """Parse an entry; raises KeyError, TypeError or ValueError."""
    entry = Entry(**fields)
    for value in (entry.version, *([] if entry.same_as is None else [entry.same_as])):
        if type(value) is not int or not 0 <= value <= LAST_VERSION:
            raise ValueError(f"{str(value)[:40]!r} as the number of a version")
    if entry.state not in _WRITTEN:
        raise ValueError(f"{str(entry.state)[:40]!r}, not a state of {', '.join(_WRITTEN)}")
    texts = (entry.at, entry.source, entry.note, *([] if entry.url is None else [entry.url]))
    texts += (*entry.files.values(), *entry.properties.values())
    figures = (*entry.parity.values(), *(entry.served or {}).values())
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int | float) for n in figures):
        raise ValueError(f"values of invalid types in version {entry.version}")
    return entry


def _read(path: Path) -> dict[int, Entry]:
    try:
        entries = [_entry(fields) for fields in read_json(path)["versions"]]
    except FileNotFoundError:
        return {}
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RegistryError(
            f"expected a registry of versions at {path}, "
            f"got {reason(error)}; move it away: the next publish writes a new one from the version folders"
        ) from error
    return {entry.version: entry for entry in entries}
