# SPDX-License-Identifier: Apache-2.0
"""Records on disk: Parquet shards, written atomically and validated on reading.

A run's folder holds `shards/*.parquet`. A shard is written under a hidden name, synced and renamed, so a reader never
sees a partial one; a round's decisions are in one shard, so the shards determine which rounds are finished. The columns
are those of `Records`, wide ones as fixed-size lists; each shard's metadata contains the run's configuration.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clients.files import json_object, open_regular, write_whole
from mcts_ext.contract import OBSERVATION_VERSION
from mcts_ext.errors import BlobError
from mcts_ext.records import Records, fault_in


def _type(array: NDArray[Any]) -> pa.DataType:
    item = pa.from_numpy_dtype(array.dtype)
    return pa.list_(item, array.shape[1]) if array.ndim == 2 else item


SCHEMA: pa.Schema = pa.schema([(name, _type(array)) for name, array in vars(Records.empty(0)).items()])
PROVENANCE_KEY: Final = b"blobzero"
MAX_ROWS: Final = 1 << 18
"""Rows per shard, 108 MB of numbers: four times the output of ten seconds at the fastest rate measured with a network
(18,500 rounds a minute by all workers, docs/experiments/strength.md). A worker splits larger outputs."""
MAX_FOOTER_BYTES: Final = 1 << 18
"""Size limit of a shard's footer; ours take 4 KB."""
MAX_FOOTER_ENTRIES: Final = 4096
"""Length limit of each list in the footer; ours have 16 entries."""
ROWS_AT_A_TIME: Final = 1 << 15
FOOTER_END: Final = 8
"""Bytes at the end of a file: the footer's length and `PARQUET_MAGIC`."""
PARQUET_MAGIC: Final = b"PAR1"
TRIES: Final = 10
RETRY_S: Final = 1.0
"""Attempts to read an unavailable shard when a run resumes, and the time between them."""


class ShardError(BlobError):
    """The shard cannot be written or read."""


class NoRoom(ShardError):
    """The disk is full."""


class ShardGone(ShardError):
    """The shard was removed since it was listed."""


class ShardUnavailable(ShardError):
    """The shard cannot be read now because of disk, permissions or memory; it may be valid."""


def write_shard(path: Path, records: Records, *, provenance: Mapping[str, Any]) -> None:
    """Write one shard atomically.

    Raises:
        NoRoom: if the disk is full.
        ShardError: if the folder is unwritable. In either case `path` does not exist.
    """
    columns = [_column(getattr(records, field.name), field.type) for field in SCHEMA]
    metadata = {PROVENANCE_KEY: json.dumps({"observation_version": OBSERVATION_VERSION, **provenance}).encode()}
    table = pa.Table.from_arrays(columns, schema=SCHEMA.with_metadata(metadata))
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd")
    try:
        write_whole(path, memoryview(content.getvalue()))
    except OSError as error:
        reason = error.strerror or error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoom(f"expected room to write {path}, got {reason}; free space or choose another --out") from error
        raise ShardError(f"expected to write {path}, got {reason}; check its folder or choose another --out") from error


def split_for_shards(records: Records) -> Iterator[Records]:
    """Split records into parts of whole rounds that each fit in a shard."""
    start = 0
    while len(records) - start > MAX_ROWS:
        round_ends = np.diff(records.round[start : start + MAX_ROWS + 1]).nonzero()[0]
        end = start + 1 + int(round_ends[-1])
        yield Records(**{name: array[start:end] for name, array in vars(records).items()})
        start = end
    yield Records(**{name: array[start:] for name, array in vars(records).items()})


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards of a folder, sorted by name; empty if there is no folder.

    Raises:
        ShardUnavailable: if the folder cannot be listed.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unavailable(folder, error.strerror or str(error)) from error
    return [folder / name for name in sorted(names) if is_shard_name(name)]


def is_shard_name(name: str) -> bool:
    """Return whether a file name is that of a shard; hidden files are unfinished or belong to tools."""
    return name.endswith(".parquet") and not name.startswith(".")


def finished_rounds(folder: Path, *, on_event: Callable[[str], None] = lambda _: None) -> set[int]:
    """Return the round numbers in a run's shards.

    Args:
        folder: folder of the shards.
        on_event: called with one line for each invalid shard; its rounds count as not played.

    Raises:
        ShardUnavailable: if a shard could not be read, so that the finished rounds are unknown.
    """
    return set[int]().union(*(set(keys["round"].tolist()) for keys in readable(folder, ["round"], on_event=on_event)))


def readable(
    folder: Path, columns: Sequence[str], *, on_event: Callable[[str], None] = lambda _: None
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Yield columns of every valid shard in a folder; arguments and errors as `finished_rounds`."""
    for path in shard_paths(folder):
        try:
            yield _read_with_retries(path, columns)
        except ShardUnavailable:
            raise
        except ShardGone:
            continue
        except ShardError as error:
            on_event(f"skipped: {error}")


def _read_with_retries(path: Path, columns: Sequence[str]) -> Mapping[str, NDArray[Any]]:
    """Read a shard, retrying while it is unavailable: a run that resumes must know its finished rounds."""
    for _ in range(TRIES - 1):
        try:
            return read_shard(path, columns).columns
        except ShardUnavailable:
            time.sleep(RETRY_S)
    return read_shard(path, columns).columns


@dataclass(frozen=True)
class Shard:
    """Contents of a shard."""

    provenance: dict[str, Any]
    """Configuration of the run that wrote it."""
    columns: dict[str, NDArray[Any]]
    """The requested columns by name, each `[n, ...]` as in `Records`."""


def read_shard(path: Path, columns: Sequence[str] = SCHEMA.names) -> Shard:
    """Read and validate columns of a shard; all readers go through here.

    The file is untrusted: its metadata is checked before its data is read, and at most `MAX_ROWS` rows are loaded.

    Raises:
        ShardGone: if the file no longer exists.
        ShardUnavailable: if reading failed; a retry may succeed.
        ShardError: if it is not a shard of this observation version, or contains invalid values.
    """
    try:
        with open_regular(path) as file:
            return _parse(file, columns)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ShardGone(f"expected a shard of records at {path}, got no file: it was removed") from error
    except MemoryError as error:
        raise _unavailable(path, "not enough memory") from error
    except (OSError, pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # On corrupt bytes, Arrow raises OSError without an errno, or seeks to an invalid offset (EINVAL).
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise _unavailable(path, error.strerror or str(error)) from error
        advice = error.advice if isinstance(error, _InvalidShard) else "remove it"
        got = " ".join(str(error).split())[:1000]
        raise ShardError(f"expected a shard of records at {path}, got {got}; {advice}") from error


class _InvalidShard(ValueError):
    """The file is not a valid shard; the message says what was found instead."""

    def __init__(self, got: str, *, advice: str = "remove it") -> None:
        super().__init__(got)
        self.advice = advice


def _unavailable(path: Path, reason: str) -> ShardUnavailable:
    return ShardUnavailable(
        f"expected to read {path}, got: {reason}; it is kept and read again later, check its disk and permissions"
    )


def _parse(file: IO[bytes], columns: Sequence[str]) -> Shard:
    """Parse a shard and check every part of it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - FOOTER_END))
    end = file.read(FOOTER_END)
    if size < 2 * FOOTER_END or end[4:] != PARQUET_MAGIC:
        raise _InvalidShard(f"{size} bytes that are not a complete Parquet file" if size else "an empty file")
    if int.from_bytes(end[:4], "little") > MAX_FOOTER_BYTES:
        raise _InvalidShard(f"a footer of more than {MAX_FOOTER_BYTES} bytes")
    parquet = pq.ParquetFile(
        file, thrift_string_size_limit=MAX_FOOTER_BYTES, thrift_container_size_limit=MAX_FOOTER_ENTRIES
    )
    provenance = _provenance(parquet.schema_arrow)
    if not parquet.schema_arrow.equals(SCHEMA):  # names, order, types and nullability
        raise _InvalidShard(f"columns ({_described(parquet.schema_arrow)}), not ({_described(SCHEMA)})")
    n_rows = parquet.metadata.num_rows
    if not 1 <= n_rows <= MAX_ROWS:
        raise _InvalidShard(f"{n_rows} rows, not 1..{MAX_ROWS}" if n_rows else "no rows")
    arrays = _arrays(parquet, columns, n_rows)
    if fault := fault_in(arrays):
        raise _InvalidShard(fault)
    return Shard(provenance, arrays)


def _provenance(schema: pa.Schema) -> dict[str, Any]:
    metadata = schema.metadata or {}
    if PROVENANCE_KEY not in metadata:
        raise _InvalidShard("no provenance")
    try:
        provenance = json_object(metadata[PROVENANCE_KEY])
    except ValueError as error:
        raise _InvalidShard(f"an unreadable provenance ({error})") from error
    version = provenance.get("observation_version")
    if type(version) is not int or version != OBSERVATION_VERSION:
        raise _InvalidShard(
            f"observation version {str(version)[:40]}, not {OBSERVATION_VERSION}",
            advice="record new rounds, or use the version that wrote it",
        )
    return provenance


def _described(schema: pa.Schema) -> str:
    columns = (f"{field.name} {field.type}{'' if field.nullable else ' not null'}" for field in schema)
    return ", ".join(columns)[:400]


def _arrays(parquet: pq.ParquetFile, names: Sequence[str], n_rows: int) -> dict[str, NDArray[Any]]:
    """Read columns `[n, ...]` in batches: Arrow needs several times the memory of what it reads."""
    rowless = vars(Records.empty(0))
    arrays = {name: np.empty((n_rows, *rowless[name].shape[1:]), rowless[name].dtype) for name in names}
    at = 0
    for batch in parquet.iter_batches(ROWS_AT_A_TIME, columns=list(names)) if names else ():
        if at + len(batch) > n_rows:
            raise _InvalidShard(f"more rows than the {n_rows} in its footer")
        for name, array in arrays.items():
            column = batch.column(name)
            values = column.flatten() if array.ndim == 2 else column
            if column.null_count or values.null_count:
                raise _InvalidShard(f"nulls in {name}")
            array[at : at + len(batch)] = values.to_numpy().reshape(-1, *array.shape[1:])
        at += len(batch)
    if names and at != n_rows:
        raise _InvalidShard(f"{at} rows, not the {n_rows} in its footer")
    return arrays


def _column(array: NDArray[Any], kind: pa.DataType) -> Any:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), kind.list_size)
    return pa.array(array, type=kind)
