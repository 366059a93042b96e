# SPDX-License-Identifier: Apache-2.0
"""Records on disk: Parquet shards that appear whole or not at all.

A run's folder holds `shards/*.parquet`. A shard is written under a hidden name, synced and renamed, so a reader never
sees half of one; a round's decisions stand together in one shard, so whoever lists the shards knows which rounds are
finished. Arrays are fixed-size lists; the run's configuration travels in each shard's metadata.
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

from clients.files import Unfit, json_object, open_regular, write_whole
from clients.selfplay.checks import fault_in
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
PROVENANCE_KEY: Final = b"blobzero"
MAX_ROWS: Final = 1 << 18
"""Of one shard, 108 MB of numbers: four times what ten seconds gave at the fastest rate measured with a network (18,500
rounds a minute by all workers, docs/experiments/strength.md). A worker that has more to write splits it."""
MAX_FOOTER_BYTES: Final = 1 << 18
"""Of a shard's description of itself; what is written here takes 4 KB."""
MAX_FOOTER_ENTRIES: Final = 4096
"""Of each list in it; 16 here."""
ROWS_AT_A_TIME: Final = 1 << 15
FOOTER_END: Final = 8
"""Bytes: the footer's length, and `PARQUET_MAGIC`."""
PARQUET_MAGIC: Final = b"PAR1"
TRIES: Final = 10
RETRY_S: Final = 1.0
"""How often, and how far apart, a run that goes on asks for a shard that cannot be read."""


class ShardError(BlobError):
    """A shard that cannot be written or read."""


class NoRoom(ShardError):
    """A shard for which there is no room on the disk now."""


class ShardGone(ShardError):
    """A shard that was removed since it was listed."""


class ShardUnavailable(ShardError):
    """A shard that cannot be read now: an error of disk, permissions or memory, which tells nothing of the shard."""


def write_shard(path: Path, records: Records, *, provenance: Mapping[str, Any]) -> None:
    """Write one shard aside, sync it and rename it to `path`.

    Raises:
        NoRoom: the disk is full.
        ShardError: the folder is unwritable. Nothing stands under `path` in either case.
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
        kind = NoRoom if error.errno in (errno.ENOSPC, errno.EDQUOT) else ShardError
        raise kind(f"expected room to write {path}, got {reason}; free space or choose another --out") from error


def in_shards(records: Records) -> Iterator[Records]:
    """Records in parts of whole rounds that each fit a shard."""
    start = 0
    while len(records) - start > MAX_ROWS:
        round_ends = np.diff(records.round[start : start + MAX_ROWS + 1]).nonzero()[0]
        end = start + 1 + int(round_ends[-1])
        yield Records(**{name: array[start:end] for name, array in vars(records).items()})
        start = end
    yield Records(**{name: array[start:] for name, array in vars(records).items()})


def shard_paths(folder: Path) -> list[Path]:
    """The shards of one folder, by name; none where there is no folder.

    Raises:
        ShardUnavailable: the folder cannot be listed.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unavailable(folder, error.strerror or str(error)) from error
    return [folder / name for name in sorted(names) if is_shard_name(name)]


def is_shard_name(name: str) -> bool:
    """Whether a file of this name is taken for a shard; with a dot before it, it is one in the making, or a tool's."""
    return name.endswith(".parquet") and not name.startswith(".")


def read_shards(paths: Sequence[Path]) -> Records:
    """All decisions of some shards, in order.

    Raises:
        ShardError: one cannot be read, or holds what no search leaves behind; its kinds are told apart above.
    """
    parts = [read_shard(path).columns for path in paths]
    if not parts:
        return Records.empty(0)
    return Records(**{name: np.concatenate([part[name] for part in parts]) for name in SCHEMA.names})


def read_observations(path: Path) -> NDArray[np.uint8]:
    """`[n, F]` the positions of one shard, without the rest; raises as `read_shard`."""
    return read_shard(path, ["observation"]).columns["observation"]


def read_provenance(path: Path) -> dict[str, Any]:
    """What a shard says of its origin; raises as `read_shard`."""
    return read_shard(path, []).provenance


def finished_rounds(folder: Path, *, on_event: Callable[[str], None] = lambda _: None) -> set[int]:
    """The round numbers that stand in a run's shards.

    Args:
        folder: of the shards.
        on_event: told, in one line, of each that is no shard: its rounds count as not played, for nobody can learn
            from them.

    Raises:
        ShardUnavailable: one that may well be a shard could not be read; how many rounds are finished is not known.
    """
    return set[int]().union(*(set(keys["round"].tolist()) for keys in readable(folder, ["round"], on_event=on_event)))


def readable(
    folder: Path, columns: Sequence[str], *, on_event: Callable[[str], None] = lambda _: None
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """These columns of every shard in a run's folder that is one; arguments and errors as `finished_rounds`."""
    for path in shard_paths(folder):
        try:
            yield _read_patiently(path, columns)
        except ShardUnavailable:
            raise
        except ShardGone:
            continue
        except ShardError as error:
            on_event(f"left out: {error}")


def _read_patiently(path: Path, columns: Sequence[str]) -> Mapping[str, NDArray[Any]]:
    """A run that goes on must know what it has: what cannot be read is asked for again for a while."""
    for _ in range(TRIES - 1):
        try:
            return read_shard(path, columns).columns
        except ShardUnavailable:
            time.sleep(RETRY_S)
    return read_shard(path, columns).columns


def rounds_of(path: Path) -> set[int]:
    """The round numbers that stand in one shard; raises as `read_shard`."""
    return set(np.unique(read_shard(path, ["round"]).columns["round"]).tolist())


def read_keys(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """Round and decision `[n]`, `[n]` of every record in one shard; raises as `read_shard`."""
    columns = read_shard(path, ["round", "decision"]).columns
    return columns["round"], columns["decision"]


@dataclass(frozen=True)
class Shard:
    """What was read of one shard."""

    provenance: dict[str, Any]
    """What it says of its origin."""
    columns: dict[str, NDArray[Any]]
    """Those asked for, by name, each `[n, ...]` as in `Records`."""


def read_shard(path: Path, columns: Sequence[str] = SCHEMA.names) -> Shard:
    """Read columns of one shard: the one door for all that reads shards, whoever wrote them.

    What the file says of itself is checked before any of its data is touched, the data before anybody uses it; at most
    `MAX_ROWS` rows are ever held.

    Raises:
        ShardGone: there is no such file any more.
        ShardUnavailable: reading failed; what the file holds is not known, and a later try may succeed.
        ShardError: no shard of this observation version, or numbers that no search leaves behind.
    """
    try:
        with open_regular(path) as file:
            return _parse(file, columns)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ShardGone(f"expected a shard of records at {path}, got nothing there: it was removed") from error
    except Unfit as error:
        raise ShardError(f"expected a shard of records at {path}, got {error}; remove it") from error
    except _NotThis as error:
        raise ShardError(f"expected a shard of records at {path}, got {error}; {error.cure}") from error
    except MemoryError as error:
        raise _unavailable(path, "not enough memory") from error
    except (OSError, pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Arrow says OSError without a number of bad bytes, and seeks to where they point.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise _unavailable(path, error.strerror or str(error)) from error
        reason = " ".join(str(error).split())[:300]
        raise ShardError(f"expected a shard of records at {path}, got {reason}; remove it") from error


class _NotThis(Exception):
    """What a file is instead of a shard, in words."""

    def __init__(self, what: str, *, cure: str = "remove it") -> None:
        super().__init__(" ".join(what.split())[:1000])
        self.cure = cure


def _unavailable(path: Path, reason: str) -> ShardUnavailable:
    return ShardUnavailable(
        f"expected to read {path}, got: {reason}; it stays where it is and is tried again, look to its disk and its "
        "permissions"
    )


def _parse(file: IO[bytes], columns: Sequence[str]) -> Shard:
    """Read from a file that is a shard if all its checks hold."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - FOOTER_END))
    end = file.read(FOOTER_END)
    if size < 2 * FOOTER_END or end[4:] != PARQUET_MAGIC:
        raise _NotThis(f"{size} bytes that are no whole Parquet file" if size else "an empty file")
    if int.from_bytes(end[:4], "little") > MAX_FOOTER_BYTES:
        raise _NotThis(f"a footer of more than {MAX_FOOTER_BYTES} bytes")
    found = pq.ParquetFile(
        file, thrift_string_size_limit=MAX_FOOTER_BYTES, thrift_container_size_limit=MAX_FOOTER_ENTRIES
    )
    provenance = _provenance(found.schema_arrow)
    if not found.schema_arrow.equals(SCHEMA):  # names in order, types with their widths, whether null is allowed
        raise _NotThis(f"columns ({_described(found.schema_arrow)}), not ({_described(SCHEMA)})")
    n_rows = found.metadata.num_rows
    if not 1 <= n_rows <= MAX_ROWS:
        raise _NotThis(f"{n_rows} rows, of 1..{MAX_ROWS}" if n_rows else "no rows")
    arrays = _arrays(found, columns, n_rows)
    if fault := fault_in(arrays):
        raise _NotThis(fault)
    return Shard(provenance, arrays)


def _provenance(schema: pa.Schema) -> dict[str, Any]:
    metadata = schema.metadata or {}
    if PROVENANCE_KEY not in metadata:
        raise _NotThis("no word of their origin")
    try:
        provenance = json_object(metadata[PROVENANCE_KEY])
    except ValueError as error:
        raise _NotThis(f"an origin that cannot be read ({error})") from error
    version = provenance.get("observation_version")
    if type(version) is not int or version != OBSERVATION_VERSION:
        raise _NotThis(
            f"observation version {str(version)[:40]} where this code has {OBSERVATION_VERSION}",
            cure="record anew, or use the code that wrote it",
        )
    return provenance


def _described(schema: pa.Schema) -> str:
    columns = (f"{field.name} {field.type}{'' if field.nullable else ' not null'}" for field in schema)
    return ", ".join(columns)[:400]


def _arrays(found: pq.ParquetFile, names: Sequence[str], n_rows: int) -> dict[str, NDArray[Any]]:
    """Columns `[n, ...]`, in pieces: Arrow needs several times the room of what it reads."""
    rowless = vars(Records.empty(0))
    arrays = {name: np.empty((n_rows, *rowless[name].shape[1:]), rowless[name].dtype) for name in names}
    at = 0
    for batch in found.iter_batches(ROWS_AT_A_TIME, columns=list(names)) if names else ():
        if at + len(batch) > n_rows:
            raise _NotThis(f"more rows than the {n_rows} that its footer says")
        for name, array in arrays.items():
            column = batch.column(name)
            values = column.flatten() if array.ndim == 2 else column
            if column.null_count or values.null_count:
                raise _NotThis(f"nulls in {name}")
            array[at : at + len(batch)] = values.to_numpy().reshape(-1, *array.shape[1:])
        at += len(batch)
    if names and at != n_rows:
        raise _NotThis(f"{at} rows where its footer says {n_rows}")
    return arrays


def _column(array: NDArray[Any], kind: pa.DataType) -> Any:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), kind.list_size)
    return pa.array(array, type=kind)
