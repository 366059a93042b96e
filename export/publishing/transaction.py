# SPDX-License-Identifier: Apache-2.0
"""Transaction on a model repository: write a version, load it in the server, check it, mark it as current.

```
lock ─ mend ─ export ─ announce ─ rename ─ load ─ ask ─ mark ─ retain
       │      │        │          │               │     └ from here on the version is current
       │      │        │          └ a server may load it: a failure withdraws it and reloads the server
       │      │        └ the registry says "publishing": after a kill, the next command recovers
       │      └ only a temporary folder exists
       └ recovers from a killed command
```
On any failure the previous version stays current and served, and nothing else is lost.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from clients.errors import EvaluatorError
from clients.files import json_object
from export.errors import ExportError, PublishFailed, RepositoryError
from export.graph import read_metadata
from export.parity import ParityReport, compare
from export.publishing.candidate import Candidate
from export.publishing.config import ensure_config
from export.publishing.recovery import mend, withdraw
from export.publishing.registry import Entry, Registry, exclusive, now
from export.publishing.repository import (
    file_hashes,
    gather,
    incoming,
    model_files,
    numbers,
    remove_version,
    rename_in,
    version_folder,
)
from export.publishing.server import ModelServer
from export.variants import PARITY_KEY
from mcts_ext.contract import MODEL_NAME
from mcts_ext.versions import LAST_VERSION

STEPS: Final = ("lock", "mend", "export", "announce", "rename", "load", "ask", "mark", "retain")
COMEBACK_S: Final = 15.0
"""How long reloads of the previous version are retried on a failing server."""

OnStep = Callable[[str], None]
"""Called with each of `STEPS` before it is taken."""


@dataclass(frozen=True)
class PublishReport:
    """Result of publishing a version."""

    version: int
    path: Path
    """Folder of the version."""
    candidate: Candidate
    served: ParityReport | None
    """Parity of the server against the candidate; None without a server."""
    same_as: int | None
    """Version restored by this one."""
    removed: tuple[int, ...]
    """Versions removed by retention."""


@dataclass(frozen=True)
class RepositoryChange:
    """A change in progress, under the lock; made by `change_of`."""

    repository: Path
    registry: Registry
    server: ModelServer | None
    on_step: OnStep

    @contextmanager
    def building(self) -> Iterator[Path]:
        """Create a temporary folder in the repository for the files of a new version."""
        self.on_step("export")
        with incoming(self.repository) as folder:
            yield folder

    def bring_in(
        self, candidate: Candidate, folder: Path, *, same_as: int | None = None, keep: int | None = None
    ) -> PublishReport:
        """Take all steps after the export, within `building`, which gives the folder."""
        repository, registry, server = self.repository, self.registry, self.server
        assembled = gather(folder, candidate.files)
        version = 1 + max(registry.last_number(), *numbers(repository), 0)
        if version > LAST_VERSION:
            raise RepositoryError(
                f"expected an unused version number, got {LAST_VERSION} in {repository}, the largest Triton supports; "
                "publish to another repository"
            )
        properties = read_metadata(model_files(assembled)[0])
        entry = Entry(
            version,
            "publishing",
            now(),
            source=candidate.source,
            same_as=same_as,
            files=file_hashes(assembled),
            properties={key: value for key, value in properties.items() if key != PARITY_KEY},
            parity=_parity(properties),
            url=None if server is None else server.url,
        )
        self.on_step("announce")
        registry.put(entry)
        served = None
        try:
            self.on_step("rename")
            rename_in(repository, assembled, version)
            if server is not None:
                served = self._load_and_ask(server, version, candidate)
            self.on_step("mark")
            done = replace(entry, served=None if served is None else asdict(served))
            registry.put(done.become("published"))
        except BaseException as error:
            self._go_back(entry, error)
            raise
        self.on_step("retain")
        removed = tuple(registry.published()[:-keep]) if keep is not None else ()
        for old in removed:
            retire(repository, registry, old, note=f"made room: --keep {keep}")
        return PublishReport(version, version_folder(repository, version), candidate, served, same_as, removed)

    def _load_and_ask(self, server: ModelServer, version: int, candidate: Candidate) -> ParityReport:
        examples = candidate.examples
        try:
            self.on_step("load")
            server.load()
            self.on_step("ask")
            served = compare(examples.expected, server.ask(examples.rows, version=version)[0])
            served.require(candidate.tolerance, what="the server's answers")
            current = server.ask(examples.rows[:1], version=None)[1]
            if current != version:
                raise EvaluatorError(f"answers of version {current}")
        except EvaluatorError as error:
            raise PublishFailed(
                f"expected the server at {server.url} to load and serve {MODEL_NAME} version {version}, got: {error}; "
                "the version was withdrawn: check the server's log and that it serves this repository"
            ) from error
        return served

    def _go_back(self, entry: Entry, error: BaseException) -> None:
        """Withdraw a failed version; the next command's `mend` does what is not possible now."""
        reason = " ".join(str(error).split()) or type(error).__name__
        with suppress(ExportError):
            withdraw(self.repository, self.registry, entry, reason=reason[:500])
        if self.server is not None:
            self.server.load_until_done(within_s=COMEBACK_S)


@contextmanager
def change_of(
    repository: Path, url: str | None, on_step: OnStep = lambda step: None, *, key_file: Path | None = None
) -> Iterator[RepositoryChange]:
    """Lock a repository for one change, after recovering from killed commands and writing missing configurations.

    Args:
        url: endpoint of a server that serves the repository, or None.
        key_file: file with the key of the server's control API, if it requires one.

    Raises:
        BlobError: if the repository cannot be changed now.
    """
    with nullcontext() if url is None else ModelServer(url, key_file=key_file) as server:
        if server is not None:  # before an export, which takes minutes
            try:
                server.live_states()
            except EvaluatorError as error:
                raise PublishFailed(f"{error}; nothing was changed") from error
        on_step("lock")
        with exclusive(repository):
            on_step("mend")
            registry = mend(repository, key_file=key_file)
            ensure_config(repository)
            yield RepositoryChange(repository, registry, server, on_step)


def retire(repository: Path, registry: Registry, version: int, *, note: str) -> None:
    """Remove a version, first from the registry, so that the next command can finish an interrupted removal."""
    entry = registry.get(version) or Entry(version, "unpublished", now())
    registry.put(entry.become("unpublished", note=note))
    remove_version(repository, version)


def _parity(properties: Mapping[str, str]) -> dict[str, float]:
    """Return the parity of the first engine in a file's metadata; empty if there is none."""
    try:
        first: Any = next(iter(json_object(properties.get(PARITY_KEY, "{}")).values()), {})
    except ValueError:
        return {}
    figures = first if isinstance(first, dict) else {}
    return {str(name): figure for name, figure in figures.items() if isinstance(figure, int | float)}
