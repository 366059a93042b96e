# SPDX-License-Identifier: Apache-2.0
"""Requests whose tensors are in system shared memory; gRPC carries only their description.

```
/dev/shm/blobzero-load-PID-N    one slot per request in flight: | rows | outputs |
```
A region's file is unlinked as soon as the server has mapped it, so no file is left after a kill. The server's mapping
ends with `close`, or with `unregister_all` after this process was killed.
"""

import contextlib
import mmap
import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clients.errors import RequestTimeout
from clients.triton.channel import key_metadata
from clients.triton.connection import Connection
from clients.triton.failures import Failure
from clients.triton.protocol import service_pb2
from mcts_ext.contract import OUTPUTS
from mcts_ext.errors import BlobError
from perf.load.plan import LoadError, Target, Traffic
from perf.load.sender.transports import Done, GrpcUnary, request_head

FOLDER: Final = "/dev/shm"
FLOAT_BYTES: Final = 4
OUTPUT_BYTES: Final = FLOAT_BYTES * sum(width for _, width in OUTPUTS.values())
"""Bytes of the outputs per row."""


@dataclass
class _Slot:
    name: str
    memory: mmap.mmap
    messages: dict[int, bytes] = field(default_factory=dict)
    """Encoded request by number of rows."""


class SharedMemory(GrpcUnary):
    """Copies the rows into a slot for each request, as a client with new rows would."""

    max_in_flight = 64

    def __init__(self, target: Target, traffic: Traffic) -> None:
        super().__init__(target, traffic)
        self._idle: deque[_Slot] = deque()
        self._slots: list[_Slot] = []
        self._slot_bytes = 0
        self._control = Control(target, self.connection)

    def prepare(self, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self._slot_bytes = max(self._slot_bytes, rows.nbytes + OUTPUT_BYTES * len(rows))
        return rows

    def send(self, prepared: NDArray[np.uint8], done: Done) -> None:
        slot = self._idle.popleft() if self._idle else self._add_slot()
        slot.memory[: prepared.nbytes] = prepared.data
        n_rows = len(prepared)
        if n_rows not in slot.messages:
            slot.messages[n_rows] = self._encode(slot, prepared)

        def finish(failure: Failure | None) -> None:
            self._idle.append(slot)
            done(failure)

        super().send(slot.messages[n_rows], finish)

    def close(self) -> None:
        for slot in self._slots:
            self._control.unregister(slot.name)
            slot.memory.close()
        self._slots.clear()
        super().close()

    def _add_slot(self) -> _Slot:
        name = f"{region_prefix(os.getpid())}{len(self._slots)}"
        path = f"{FOLDER}/{name}"
        handle = None
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            os.posix_fallocate(handle, 0, self._slot_bytes)  # a full /dev/shm is an error here, not a signal later
            memory = mmap.mmap(handle, self._slot_bytes)
            self._control.register(name, self._slot_bytes)
        except OSError as error:
            raise LoadError(
                f"expected {self._slot_bytes} bytes of shared memory, got {error.strerror}; enlarge {FOLDER}"
            ) from error
        finally:
            if handle is not None:
                os.close(handle)
                os.unlink(path)
        slot = _Slot(name, memory)
        self._slots.append(slot)
        return slot

    def _encode(self, slot: _Slot, rows: NDArray[np.uint8]) -> bytes:
        head = request_head(self._target, len(rows))
        widths = [FLOAT_BYTES * width for _, width in OUTPUTS.values()]
        at = 0
        for tensor, row_bytes in zip([*head.inputs, *head.outputs], [rows.shape[1], *widths], strict=True):
            n_bytes = row_bytes * len(rows)
            tensor.parameters["shared_memory_region"].string_param = slot.name
            tensor.parameters["shared_memory_offset"].int64_param = at
            tensor.parameters["shared_memory_byte_size"].int64_param = n_bytes
            at += n_bytes
        return bytes(head.SerializeToString())


class Control:
    """Registers and unregisters the regions of one server."""

    def __init__(self, target: Target, connection: Connection) -> None:
        self._target = target
        self._metadata = key_metadata(target.url, target.key_file)
        self._connection = connection

    def register(self, name: str, size: int) -> None:
        request = service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", offset=0, byte_size=size)
        try:
            self._call("SystemSharedMemoryRegister", request)
        except RequestTimeout:  # the connection may be dead, and the call may have arrived
            self.unregister(name)
            self._call("SystemSharedMemoryRegister", request)

    def unregister(self, name: str) -> None:
        """Unregister a region; ignores a server that is gone or does not know it."""
        request = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
        with contextlib.suppress(BlobError):
            self._call("SystemSharedMemoryUnregister", request)

    def unregister_all(self, pid: int) -> None:
        """Unregister the regions of a process that was killed."""
        with contextlib.suppress(BlobError):
            status = self._call("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest())
            for name in [name for name in status.regions if name.startswith(region_prefix(pid))]:
                self.unregister(name)

    def _call(self, method: str, request: Any) -> Any:
        return self._connection.call(method, request, model=self._target.model, timeout_s=5.0, metadata=self._metadata)


def region_prefix(pid: int) -> str:
    return f"blobzero-load-{pid}-"
