# SPDX-License-Identifier: Apache-2.0
"""Records on disk: Parquet shards that appear whole or not at all.

A run's folder holds `shards/*.parquet`. A shard is written under a hidden name, synced and renamed, so a reader never
sees half of one; a round's decisions stand together in one shard, so whoever lists the shards knows which rounds are
finished. Arrays are fixed-size lists; the run's configuration travels in each shard's metadata.
"""

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mcts_ext.contract import N_ACTIONS, N_SEATS, OBSERVATION_BYTES, OBSERVATION_VERSION
from mcts_ext.errors import BlobError
from mcts_ext.records import Records

SCHEMA: pa.Schema = pa.schema(
    [
        ("observation", pa.list_(pa.uint8(), OBSERVATION_BYTES)),
        ("policy", pa.list_(pa.float32(), N_ACTIONS)),
        ("value", pa.list_(pa.float32(), N_SEATS)),
        ("round", pa.int64()),
        ("decision", pa.int16()),
        ("seat", pa.uint8()),
        ("action", pa.uint8()),
        ("model_version", pa.int64()),
    ]
)
PROVENANCE_KEY = b"blobzero"


class ShardError(BlobError):
    """A shard that cannot be written or read."""


class NoRoom(ShardError):
    """A shard for which there is no room on the disk now."""


def write_shard(path: Path, records: Records, *, provenance: Mapping[str, Any]) -> None:
    """Write one shard aside, sync it and rename it to `path`.

    Raises:
        NoRoom: the disk is full.
        ShardError: the folder is unwritable. Nothing stands under `path` in either case.
    """
    columns = [_column(getattr(records, field.name), field.type) for field in SCHEMA]
    metadata = {PROVENANCE_KEY: json.dumps({"observation_version": OBSERVATION_VERSION, **provenance}).encode()}
    table = pa.Table.from_arrays(columns, schema=SCHEMA.with_metadata(metadata))
    aside = path.with_name(f".{path.name}.partial")
    try:
        with aside.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        reason = error.strerror or error
        kind = NoRoom if error.errno in (errno.ENOSPC, errno.EDQUOT) else ShardError
        raise kind(f"expected room to write {path}, got {reason}; free space or choose another --out") from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def shard_paths(folder: Path) -> list[Path]:
    """The whole shards of a run, by name."""
    return sorted(folder.glob("*.parquet"))


def read_shards(paths: Sequence[Path]) -> Records:
    """All decisions of some shards, in order."""
    tables = [_read(path, None) for path in paths]
    if not tables:
        return Records.empty(0)
    table = pa.concat_tables(tables)
    return Records(**{field.name: _array(table.column(field.name)) for field in SCHEMA})


def read_observations(path: Path) -> NDArray[np.uint8]:
    """`[n, F]` the positions of one shard, without the rest."""
    return _array(_read(path, ["observation"]).column("observation"))


def read_provenance(path: Path) -> dict[str, Any]:
    """What a shard says of its origin."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        found: dict[str, Any] = json.loads(metadata[PROVENANCE_KEY])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise ShardError(f"expected a shard of records at {path}, got {error}; remove it") from error
    return found


def finished_rounds(folder: Path) -> set[int]:
    """The round numbers that stand in a run's shards."""
    return set[int]().union(*map(rounds_of, shard_paths(folder)))


def rounds_of(path: Path) -> set[int]:
    """The round numbers that stand in one shard.

    Raises:
        ShardError: it cannot be read.
    """
    return set(np.unique(_array(_read(path, ["round"]).column("round"))).tolist())


def read_keys(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """Round and decision `[n]`, `[n]` of every record in one shard.

    Raises:
        ShardError: it cannot be read.
    """
    table = _read(path, ["round", "decision"])
    return _array(table.column("round")), _array(table.column("decision"))


def _read(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise ShardError(f"expected a shard of records at {path}, got {error}; remove it") from error


def _column(array: NDArray[Any], kind: pa.DataType) -> Any:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), kind.list_size)
    return pa.array(array, type=kind)


def _array(column: Any) -> NDArray[Any]:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if pa.types.is_fixed_size_list(array.type):
        return np.asarray(array.flatten()).reshape(len(array), array.type.list_size)
    return np.asarray(array)
