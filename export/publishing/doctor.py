# SPDX-License-Identifier: Apache-2.0
"""Consistency check of repository, registry and server; each finding comes with a remedy."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import text_format

from clients.errors import EvaluatorError, ServerUnreachable
from clients.files import read_small
from clients.triton.protocol import model_config_pb2
from clients.triton.served_model import check_served_model
from export.errors import ExportError
from export.graph import read_metadata
from export.parity import compare
from export.publishing.candidate import read_candidate
from export.publishing.config import config_names, config_path
from export.publishing.publish import SERVED_VERSIONS
from export.publishing.recovery import faults
from export.publishing.registry import Registry, is_busy
from export.publishing.repository import (
    file_hashes,
    model_files,
    model_path,
    numbers,
    require_repository,
    version_folder,
)
from export.publishing.server import READY, ModelServer
from export.publishing.transaction import change_of
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import BlobError
from mcts_ext.versions import is_left_out, is_mistaken, version_number

MEND: Final = "blobzero doctor --mend, or any publish, rollback or unpublish, repairs it"
RELOAD: Final = "blobzero doctor --mend with this --url makes it reload the repository"


@dataclass(frozen=True)
class Finding:
    """Inconsistency and its remedy."""

    what: str
    mend: str
    """Remedy."""


def examine(repository: Path, *, url: str | None = None, key_file: Path | None = None) -> list[Finding]:
    """Return all findings; an empty list means that everything is consistent.

    Args:
        repository: model repository.
        url: endpoint of a server that serves it; None checks no server.
        key_file: file with the key of its control API, if it requires one.

    Raises:
        RepositoryError: if there is no repository.
    """
    require_repository(repository)
    if is_busy(repository):
        return [Finding(f"{repository} is being changed by another command", "try again when it is done")]
    try:
        registry = Registry(repository)
    except ExportError as error:
        return [Finding(str(error).partition("; ")[0], str(error).partition("; ")[2])]
    findings = [
        *_configurations(repository),
        *(Finding(what, MEND) for what, _ in faults(repository, registry)),
        *_names(repository),
        *_files(repository, registry),
    ]
    if url is not None:
        findings += _server(repository, registry, url, key_file)
    return findings


def set_right(repository: Path, *, url: str | None = None, key_file: Path | None = None) -> None:
    """Repair what killed commands left, and make a server reload the repository.

    Raises:
        BlobError: if the repository cannot be changed now, or the server fails to load it.
    """
    require_repository(repository)
    with change_of(repository, url, key_file=key_file) as change:
        if change.server is not None:
            change.server.load()


def _configurations(repository: Path) -> Iterator[Finding]:
    for name in config_names():
        path = config_path(repository, name)
        if not path.is_file():
            yield Finding(f"{path} is missing", MEND)
            continue
        try:
            config = text_format.Parse(read_small(path).decode(), model_config_pb2.ModelConfig())
            check_served_model(config, model=MODEL_NAME, url=str(path))
        except (OSError, text_format.ParseError, UnicodeDecodeError, BlobError) as error:
            text = " ".join(str(error).split())
            yield Finding(f"{path} is invalid: {text}", "remove it; the next publish writes a new one")


def _names(repository: Path) -> Iterator[Finding]:
    for path in sorted((repository / MODEL_NAME).iterdir()):
        if path.is_dir() and is_left_out(path.name):
            renamed = path.with_name(path.name.lstrip("0") or "0")
            may_rename = version_number(renamed.name) is not None and not renamed.exists()
            mend = f"rename it to {renamed}, then: {MEND}" if may_rename else f"move it out of {path.parent}"
            yield Finding(f"{path} is not served: Triton ignores names with leading zeros", mend)
        elif path.is_dir() and is_mistaken(path.name):
            yield Finding(
                f"{path} keeps Triton from loading the model: it is not a version", f"move it out of {path.parent}"
            )


def _files(repository: Path, registry: Registry) -> Iterator[Finding]:
    """Check the files of versions that are published, or not in the registry; recovery removes all others."""
    for version in numbers(repository):
        folder, entry = version_folder(repository, version), registry.get(version)
        if entry is not None and entry.state != "published":
            continue
        remove, files = f"blobzero unpublish {version} removes it", model_files(folder)
        if not files and entry is None:
            yield Finding(f"{folder} contains no model", remove)
        try:
            for path in files:
                read_metadata(path)
        except ExportError as error:
            yield Finding(str(error).partition("; ")[0], remove)
            continue
        if files and entry is not None and entry.files != file_hashes(folder):
            yield Finding(
                f"{folder} was modified after publishing: a file's SHA-256 differs from the registry's",
                f"publish its source again ({entry.source or 'unknown'}), then: {remove}",
            )


def _server(repository: Path, registry: Registry, url: str, key_file: Path | None) -> Iterator[Finding]:
    wanted = registry.published()[-SERVED_VERSIONS:]
    with ModelServer(url, key_file=key_file) as server:
        try:
            states = server.live_states()
        except EvaluatorError as error:
            what, _, mend = str(error).rpartition("; ")
            if isinstance(error, ServerUnreachable):
                mend = f"blobzero serve --repository {shlex.quote(str(repository))}, or use another --url"
            yield Finding(what, mend)
            return
        for version in sorted({*states, *wanted}):
            state = states.get(version, "unknown")
            if version in wanted and state != READY:
                yield Finding(f"version {version} should be served at {url}, but is {state}", RELOAD)
            elif version not in wanted and state == READY:
                yield Finding(f"version {version} is served at {url}, but should not be", RELOAD)
        for version in wanted:
            if states.get(version) == READY:
                yield from _answers(repository, server, version)


def _answers(repository: Path, server: ModelServer, version: int) -> Iterator[Finding]:
    """Check that the server's outputs match those of the version's file."""
    path = model_path(repository, version)
    mend = "publish it again; if that fails as well, check the server's log"
    try:
        candidate = read_candidate({path.name: path}, source="")
        report = compare(candidate.examples.expected, server.ask(candidate.examples.rows, version=version)[0])
        report.require(candidate.tolerance, what=f"answers of version {version} at {server.url}")
    except BlobError as error:
        yield Finding(str(error).partition("; ")[0], mend)
