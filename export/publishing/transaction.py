# SPDX-License-Identifier: Apache-2.0
"""One change of a model repository: put a version on disk, let the server load it, compare, call it current.

```
lock ─ mend ─ export ─ announce ─ rename ─ load ─ ask ─ mark ─ retain
       │      │        │          │               │     └ from here on it is current
       │      │        │          └ a server may have it: what fails now withdraws it, and the server goes back
       │      │        └ the registry says "publishing": who is killed now is mended by the next command
       │      └ nothing but a folder aside
       └ what an earlier command left, when it was killed
```
Whatever fails, the version before serves on and is current, and nothing that was there is gone.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

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
"""How long a server that fails is told to go back to the version before."""

OnStep = Callable[[str], None]
"""Told each of `STEPS` before it is taken."""


@dataclass(frozen=True)
class PublishReport:
    """What became of a version."""

    version: int
    path: Path
    """Its folder."""
    candidate: Candidate
    served: ParityReport | None
    """The server's answers against the candidate's; none where no server was asked."""
    same_as: int | None
    """The version it brings back."""
    removed: tuple[int, ...]
    """Versions that retention took out."""


class Change:
    """One change of a repository, from the lock to its end: a context.

    Args:
        repository: the model repository; its configuration is written where it is missing.
        url: of a server that serves it; none to leave servers alone.
        on_step: told each of `STEPS` before it is taken.
        key_file: holds the key of the server's control API, where it asks for one.

    Raises:
        BlobError: on entering, a subclass says why the repository can't be changed now.
    """

    def __init__(
        self,
        repository: Path,
        url: str | None,
        on_step: OnStep = lambda step: None,
        *,
        key_file: Path | None = None,
    ) -> None:
        self.repository = repository
        self.on_step = on_step
        self.server = None if url is None else ModelServer(url, key_file=key_file)
        self._key_file = key_file
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.server or nullcontext())
            if self.server is not None:
                self.server.require_live()
            self.on_step("lock")
            stack.enter_context(exclusive(self.repository))
            self.on_step("mend")
            self.registry: Registry = mend(self.repository, key_file=self._key_file)
            ensure_config(self.repository)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def work_folder(self, step: str) -> Path:
        """A folder beside the versions, for as long as the change lasts."""
        self.on_step(step)
        self._work = self._stack.enter_context(incoming(self.repository))
        return self._work

    def bring_in(self, candidate: Candidate, *, same_as: int | None = None, keep: int | None = None) -> PublishReport:
        """Everything after the export."""
        repository, registry, server = self.repository, self.registry, self.server
        folder = gather(self._work, candidate.files)
        version = 1 + max(registry.last_number(), *numbers(repository), 0)
        if version > LAST_VERSION:
            raise RepositoryError(
                f"expected room for a version, got {LAST_VERSION} in {repository}, the last that Triton counts to; "
                "publish to another repository"
            )
        properties = read_metadata(model_files(folder)[0])
        entry = Entry(
            version,
            "publishing",
            now(),
            source=candidate.source,
            same_as=same_as,
            files=file_hashes(folder),
            properties={key: value for key, value in properties.items() if key != PARITY_KEY},
            parity=_parity(properties),
            url=None if server is None else server.url,
        )
        self.on_step("announce")
        registry.put(entry)
        served = None
        try:
            self.on_step("rename")
            rename_in(repository, folder, version)
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
        try:
            self.on_step("load")
            server.load()
            self.on_step("ask")
            served = compare(candidate.expected, server.ask(candidate.rows, version=version)[0])
            served.require(candidate.tolerance, what="the server's answers")
            current = server.ask(candidate.rows[:1], version=None)[1]
        except EvaluatorError as error:
            raise PublishFailed(_did_not_take(server.url, version, str(error))) from error
        if current != version:
            raise PublishFailed(_did_not_take(server.url, version, f"answers of version {current}"))
        return served

    def _go_back(self, entry: Entry, error: BaseException) -> None:
        """Withdraw a version that failed; what can't be done now, the next command's `mend` does."""
        reason = " ".join(str(error).split()) or type(error).__name__
        with suppress(ExportError):
            withdraw(self.repository, self.registry, entry, reason=reason[:500])
        if self.server is not None:
            self.server.load_until_done(within_s=COMEBACK_S)


def retire(repository: Path, registry: Registry, version: int, *, note: str) -> None:
    """The registry first: a folder that stays behind is removed by the next command, one that is missed is not."""
    entry = registry.get(version) or Entry(version, "unpublished", now())
    registry.put(entry.become("unpublished", note=note))
    remove_version(repository, version)


def _did_not_take(url: str, version: int, got: str) -> str:
    return (
        f"expected the server at {url} to load and answer {MODEL_NAME} version {version}, got: {got}; "
        "the version was withdrawn: check the server's log and that it serves this repository"
    )


def _parity(properties: Mapping[str, str]) -> dict[str, float]:
    """The figures of the first engine that a file states; none where it states no such thing."""
    try:
        found: Any = next(iter(json_object(properties.get(PARITY_KEY, "{}")).values()), {})
    except ValueError:
        return {}
    figures = found if isinstance(found, dict) else {}
    return {str(name): figure for name, figure in figures.items() if isinstance(figure, int | float)}
