# SPDX-License-Identifier: Apache-2.0
"""Publish a network, go back to an earlier one, take one out: what becomes of versions (how: transaction.py)."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from export.errors import PublishFailed, RepositoryError
from export.graph import read_metadata
from export.precisions import FILE_NAMES
from export.publishing.candidate import Wish, build_candidate, read_candidate
from export.publishing.config import ensure_config
from export.publishing.repository import model_files, model_path, numbers, require_repository, version_folder, versions
from export.publishing.transaction import Change, OnStep, PublishReport, retire
from mcts_ext.errors import InvalidConfig
from training.checkpoint import describe, load_checkpoint
from training.network import BlobNet, create_network

SERVED_VERSIONS: Final = 2
"""As in config.pbtxt: the current version and the one before."""


def publish(
    source: Path | BlobNet,
    *,
    repository: Path,
    url: str | None = None,
    key_file: Path | None = None,
    wish: Wish | None = None,
    keep: int | None = None,
    seed: int | None = None,
    on_step: OnStep = lambda step: None,
) -> PublishReport:
    """Publish a checkpoint, an exported file or a network as it stands, as the next version.

    Args:
        source: a checkpoint; a file of `blobzero export` (by its suffix, .onnx or .pt); or a network.
        repository: the model repository; its configuration is written where it is missing.
        url: `host:port` of the gRPC endpoint of a server that serves `repository`; it loads the new version.
        key_file: holds the key of that server's control API, where it asks for one.
        wish: formats, precision and positions of what is exported here.
        keep: how many versions stay, the newest; none for all.
        seed: that a network was initialized from, where that is known.
        on_step: see `OnStep`.

    Raises:
        BlobError: a subclass says what failed; the old version serves on and no new one is left on disk.
    """
    wish = wish or Wish()
    _check_keep(keep)
    file = _exported_file(source)
    if file is None:
        network, info = load_checkpoint(source) if isinstance(source, Path) else (source, describe(source, seed=seed))
    with Change(repository, url, on_step, key_file=key_file) as change:
        served = change.server.served() if change.server else None
        needed = None if served is None else _file_of(served.backend)
        folder = change.work_folder("export")
        if file is not None:
            _require(needed, set(file), url)
            candidate = read_candidate(file, source=str(source))
        else:
            _require(needed, {FILE_NAMES[form] for form in wish.formats}, url)
            said = str(source) if isinstance(source, Path) else f"untrained, preset {info.preset}"
            wish = replace(wish, on_gpu=served is not None and served.on_gpu)
            candidate = build_candidate(network, info, folder, source=said, wish=wish)
        return change.bring_in(candidate, keep=keep)


def rollback(
    repository: Path,
    version: int | None = None,
    *,
    url: str | None = None,
    key_file: Path | None = None,
    on_step: OnStep = lambda step: None,
) -> PublishReport:
    """Make an earlier version's network current again, as a new version with the same files.

    Numbers only grow, so no client sees an old number after a new one, and a record's version always tells its network.

    Args:
        repository: the model repository.
        version: the one to bring back; by default the network before the current one.
        url, key_file, on_step: as of `publish`.

    Raises:
        BlobError: as of `publish`; RepositoryError: no such version.
    """
    require_repository(repository)
    with Change(repository, url, on_step, key_file=key_file) as change:
        published = change.registry.published()
        current = change.registry.get(published[-1]) if published else None
        if version is None:
            earlier = [n for n in published if current is not None and n < current.origin]
            if not earlier:
                raise RepositoryError(
                    f"expected a version before the current one in {repository}, got {_listing(published)}"
                )
            version = earlier[-1]
        elif version not in published:
            raise RepositoryError(
                f"expected a published version of {_listing(published)}, got {version}; blobzero models lists them"
            )
        elif version == published[-1]:
            raise RepositoryError(f"expected a version other than the current one, got {version}; nothing changed")
        entry = change.registry.get(version)
        assert entry is not None
        change.work_folder("export")
        files = {path.name: path for path in model_files(version_folder(repository, version))}
        candidate = read_candidate(files, source=entry.source)
        return change.bring_in(candidate, same_as=entry.origin)


def unpublish(repository: Path, version: int, *, url: str | None = None, key_file: Path | None = None) -> None:
    """Take one version out of the repository, and off the server.

    Raises:
        RepositoryError: no such version, or it is the current one.
    """
    require_repository(repository)
    with Change(repository, url, key_file=key_file) as change:
        published = change.registry.published()
        present = numbers(repository)
        if version not in present:
            raise RepositoryError(
                f"expected a version of {_listing(present)}, got {version}; blobzero models lists them"
            )
        if published and version == published[-1]:
            raise RepositoryError(
                f"expected a version other than the current one, got {version}; go back first (blobzero rollback)"
            )
        retire(repository, change.registry, version, note="unpublished by hand")
        if change.server is not None:
            change.server.load()


def ensure_model(repository: Path, *, preset: str = "reference", seed: int = 0) -> int:
    """The latest version, after publishing an untrained network as version 1 where there is none.

    Raises:
        BlobError: a subclass says why the latest version can't be served by this code, or none could be published.
    """
    ensure_config(repository)
    present = versions(repository)
    if not present:
        return publish(create_network(preset, seed=seed), repository=repository, seed=seed).version
    read_metadata(model_path(repository, present[-1]))
    return present[-1]


def _exported_file(source: Path | BlobNet) -> dict[str, Path] | None:
    """A source that is an exported file, under the name it has in a version's folder; refused if it does not fit."""
    if not isinstance(source, Path) or source.suffix not in (".onnx", ".pt"):
        return None
    read_metadata(source)
    return {FILE_NAMES["onnx" if source.suffix == ".onnx" else "torchscript"]: source}


def _listing(found: list[int]) -> str:
    return ", ".join(map(str, found)) or "none"


def _file_of(backend: str) -> str:
    """The file that a backend reads."""
    return FILE_NAMES["torchscript" if backend == "pytorch" else "onnx"]


def _require(needed: str | None, present: set[str], url: str | None) -> None:
    if needed is not None and needed not in present:
        raise PublishFailed(
            f"expected {needed}, which the server at {url} reads, got {', '.join(sorted(present))}; "
            "choose other --formats, or serve with another --config-name"
        )


def _check_keep(keep: int | None) -> None:
    if keep is not None and keep < SERVED_VERSIONS:
        raise InvalidConfig(f"expected --keep of at least {SERVED_VERSIONS}, which a server serves at once, got {keep}")
