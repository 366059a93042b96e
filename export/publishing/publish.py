# SPDX-License-Identifier: Apache-2.0
"""Operations on versions: publish, roll back, unpublish (as transactions, transaction.py)."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from export.errors import PublishFailed, RepositoryError
from export.graph import read_metadata
from export.precisions import FILE_NAMES
from export.publishing.candidate import ExportOptions, build_candidate, read_candidate
from export.publishing.config import ensure_config
from export.publishing.repository import model_files, model_path, numbers, require_repository, version_folder, versions
from export.publishing.transaction import OnStep, PublishReport, change_of, retire
from export.variants import variant_of
from mcts_ext.errors import InvalidConfig
from training.checkpoint import describe, load_checkpoint
from training.network import BlobNet, create_network

SERVED_VERSIONS: Final = 2
"""Number of served versions, as in config.pbtxt: the current and the previous one."""


def publish(
    source: Path | BlobNet,
    *,
    repository: Path,
    url: str | None = None,
    key_file: Path | None = None,
    options: ExportOptions | None = None,
    keep: int | None = None,
    seed: int | None = None,
    on_step: OnStep = lambda step: None,
) -> PublishReport:
    """Publish a checkpoint, an exported file or a network as the next version.

    Args:
        source: a checkpoint, a file of `blobzero export` (.onnx or .pt), or a network.
        repository: model repository; missing configurations are written.
        url: HOST:PORT of the gRPC endpoint of a server that serves `repository`; it loads the new version.
        key_file: file with the key of that server's control API, if it requires one.
        options: formats, precision and positions of the export.
        keep: number of newest versions to keep; None keeps all.
        seed: seed of a network's initial weights, if known.
        on_step: see `OnStep`.

    Raises:
        BlobError: on any failure; the previous version stays current and no new one is left on disk.
    """
    options = options or ExportOptions()
    if keep is not None and keep < SERVED_VERSIONS:
        raise InvalidConfig(f"expected --keep of at least {SERVED_VERSIONS}, the number of served versions, got {keep}")
    files: dict[str, Path] = {}
    if not isinstance(source, Path):
        network, info = source, describe(source, seed=seed)
        origin = f"untrained, preset {info.preset}"
    elif source.suffix in (".onnx", ".pt"):
        files[variant_of(source).file_name] = source
    else:
        network, info = load_checkpoint(source)
        origin = str(source)
    with change_of(repository, url, on_step, key_file=key_file) as change:
        backend, on_gpu = change.server.serving() if change.server else (None, False)
        names = set(files) or {FILE_NAMES[form] for form in options.formats}
        needed = FILE_NAMES["torchscript" if backend == "pytorch" else "onnx"]
        if backend is not None and needed not in names:
            raise PublishFailed(
                f"expected {needed}, required by the server at {url}, got {', '.join(sorted(names))}; "
                "choose other --formats, or serve with another --config-name"
            )
        with change.building() as folder:
            if files:
                candidate = read_candidate(files, source=str(source))
            else:
                options = replace(options, on_gpu=on_gpu)
                candidate = build_candidate(network, info, folder, source=origin, options=options)
            return change.bring_in(candidate, folder, keep=keep)


def rollback(
    repository: Path,
    version: int | None = None,
    *,
    url: str | None = None,
    key_file: Path | None = None,
    on_step: OnStep = lambda step: None,
) -> PublishReport:
    """Make an earlier version's network current again, as a new version with the same files.

    Version numbers only increase, so no client sees an old number after a new one, and a number identifies a network.

    Args:
        repository: model repository.
        version: version to restore; by default the network before the current one.
        url, key_file, on_step: see `publish`.

    Raises:
        BlobError: as `publish`; RepositoryError: if there is no such version.
    """
    require_repository(repository)
    with change_of(repository, url, on_step, key_file=key_file) as change:
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
            raise RepositoryError(f"expected a version other than the current one, got {version}; choose another")
        entry = change.registry.get(version)
        assert entry is not None
        with change.building() as folder:
            files = {path.name: path for path in model_files(version_folder(repository, version))}
            candidate = read_candidate(files, source=entry.source)
            return change.bring_in(candidate, folder, same_as=entry.origin)


def unpublish(repository: Path, version: int, *, url: str | None = None, key_file: Path | None = None) -> None:
    """Remove one version from the repository and the server.

    Raises:
        RepositoryError: if there is no such version, or it is the current one.
    """
    require_repository(repository)
    with change_of(repository, url, key_file=key_file) as change:
        published = change.registry.published()
        present = numbers(repository)
        if version not in present:
            raise RepositoryError(
                f"expected a version of {_listing(present)}, got {version}; blobzero models lists them"
            )
        if published and version == published[-1]:
            raise RepositoryError(
                f"expected a version other than the current one, got {version}; roll back first (blobzero rollback)"
            )
        retire(repository, change.registry, version, note="unpublished by hand")
        if change.server is not None:
            change.server.load()


def ensure_model(repository: Path, *, preset: str = "reference", seed: int = 0) -> int:
    """Return the latest version; if there is none, publish an untrained network as version 1.

    Raises:
        BlobError: if the latest version does not match this code's contract, or publishing failed.
    """
    ensure_config(repository)
    present = versions(repository)
    if not present:
        return publish(create_network(preset, seed=seed), repository=repository, seed=seed).version
    read_metadata(model_path(repository, present[-1]))
    return present[-1]


def _listing(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
