# SPDX-License-Identifier: Apache-2.0
"""The registry: what was published when, from which checkpoint, with which figures, and what became of it.

One JSON file beside the model's folder, `<repository>/registry.json`, replaced as a whole. It follows what happens to
the version folders, so that whatever is killed, it and the folders tell what was going on (recovery.py):

```
publishing ── the server took it ──> published ── unpublish, --keep ──> unpublished      (folder gone)
     └─────── anything failed ─────> withdrawn                                           (folder gone)
```
A number is never used twice. The current version is the highest that is published: a server answers with it by default.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from clients.files import read_json, reason, write_whole
from clients.lock import FolderBusy, FolderUnwritable, is_held, sole_writer
from export.errors import RegistryError, RepositoryBusy, unwritable
from mcts_ext.contract import MODEL_NAME
from mcts_ext.versions import LAST_VERSION

FILE: Final = "registry.json"
LOCK: Final = ".publishing.lock"

State = Literal["publishing", "published", "withdrawn", "unpublished", "unregistered"]
"""The last is never written: it stands for a folder without an entry."""


_WRITTEN: Final = tuple(state for state in get_args(State) if state != "unregistered")


@dataclass(frozen=True)
class Entry:
    """What is known of one version."""

    version: int
    state: State
    at: str = ""
    """When it entered this state, local time with its offset."""
    source: str = ""
    """The checkpoint, or how else the network came about."""
    same_as: int | None = None
    """The version that this one brings back, after a rollback."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file of the folder."""
    properties: dict[str, str] = field(default_factory=dict)
    """What the exported file says of itself: hash of the weights, step, commit, precision."""
    parity: dict[str, float] = field(default_factory=dict)
    """How far the file's answers were from PyTorch's in float32."""
    served: dict[str, float] | None = None
    """How far the server's answers were from the reference; none where no server was asked."""
    url: str | None = None
    """The server that was told to load it."""
    note: str = ""
    """Why it was withdrawn, or how it got here."""

    def become(self, state: State, *, note: str = "") -> "Entry":
        """The entry in another state, from now on."""
        return replace(self, state=state, at=now(), note=note or self.note)

    @property
    def origin(self) -> int:
        """The version whose network this is."""
        return self.same_as or self.version


class Registry:
    """The entries of one repository, in memory; `put` also writes them."""

    def __init__(self, repository: Path) -> None:
        self.path = repository / FILE
        self._repository = repository
        self._entries = _read(self.path)

    def __iter__(self) -> Iterator[Entry]:
        """By version, oldest first."""
        return iter([self._entries[version] for version in sorted(self._entries)])

    def get(self, version: int) -> Entry | None:
        """The entry of a version, if there is one."""
        return self._entries.get(version)

    def published(self) -> list[int]:
        """The versions that count, oldest first; the last is current."""
        return [entry.version for entry in self if entry.state == "published"]

    def last_number(self) -> int:
        """The highest number ever given; 0 before the first."""
        return max(self._entries, default=0)

    def put(self, *entries: Entry) -> None:
        """Write entries, all at once; what stood there is replaced by the whole new file.

        Raises:
            RepositoryError: the file cannot be written; it and this object are as they were.
        """
        after = {**self._entries, **{entry.version: entry for entry in entries}}
        text = {"model": MODEL_NAME, "versions": [_plain(after[version]) for version in sorted(after)]}
        try:
            write_whole(self.path, (json.dumps(text, indent=2) + "\n").encode())
        except OSError as error:
            raise unwritable(self._repository, error) from error
        self._entries = after


@contextmanager
def exclusive(repository: Path) -> Iterator[None]:
    """Be the only one who changes a repository; the lock ends with the process, however that ends.

    Raises:
        RepositoryBusy: another process is at it.
        RepositoryError: the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(sole_writer(repository, lock=LOCK, advice="repeat when it is done"))
        except FolderBusy as error:
            raise RepositoryBusy(str(error)) from error
        except FolderUnwritable as error:
            raise unwritable(repository, error.__cause__ or error) from error
        yield


def is_busy(repository: Path) -> bool:
    """Whether some process is changing the repository at this moment."""
    return is_held(repository / LOCK)


def now() -> str:
    """The local time to the second, with its offset from UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _plain(entry: Entry) -> dict[str, Any]:
    """Without what is empty: people read this."""
    return {key: value for key, value in asdict(entry).items() if value not in (None, "", {})}


def _entry(found: Any) -> Entry:
    """An entry of the file; raises KeyError, TypeError or ValueError where it is none."""
    entry = Entry(**found)
    for value in (entry.version, *([] if entry.same_as is None else [entry.same_as])):
        if type(value) is not int or not 0 <= value <= LAST_VERSION:
            raise ValueError(f"{str(value)[:40]!r} as the number of a version")
    if entry.state not in _WRITTEN:
        raise ValueError(f"{str(entry.state)[:40]!r}, not a state of {', '.join(_WRITTEN)}")
    texts = (entry.at, entry.source, entry.note, *([] if entry.url is None else [entry.url]))
    texts += (*entry.files.values(), *entry.properties.values())
    figures = (*entry.parity.values(), *(entry.served or {}).values())
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int | float) for n in figures):
        raise ValueError(f"others than texts and figures in version {entry.version}")
    return entry


def _read(path: Path) -> dict[int, Entry]:
    try:
        entries = [_entry(fields) for fields in read_json(path)["versions"]]
    except FileNotFoundError:
        return {}
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RegistryError(
            f"expected a registry of versions at {path}, "
            f"got {reason(error)}; move it away: the next publish writes another "
            "from what the version folders say of themselves"
        ) from error
    return {entry.version: entry for entry in entries}
