# SPDX-License-Identifier: Apache-2.0
"""Requests whose tensors stand in shared memory: the server reads and writes them there, gRPC carries the rest.

```
/dev/shm/blobzero-load-PID-N    one slot: | inputs | outputs |       as many slots as requests in flight
```
A region loses its name as soon as the server has mapped it, so whatever is killed, no file stays behind; the server's
mapping goes with `close`, or, where this process is killed, with `unregister_all`.
"""

import contextlib
import mmap
import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from clients.errors import RequestTimeout
from clients.triton.channel import key_metadata
from clients.triton.connection import Connection
from clients.triton.failures import Failure
from clients.triton.protocol import service_pb2
from mcts_ext.errors import BlobError
from perf.load.plan import LoadError, Target, Traffic
from perf.load.sender.rows import Payload
from perf.load.sender.signature import Signature
from perf.load.sender.transports import Done, GrpcUnary, request_head

FOLDER: Final = "/dev/shm"
ALIGNMENT: Final = 4096


@dataclass
class _Slot:
    name: str
    memory: mmap.mmap
    requests: dict[int, bytes] = field(default_factory=dict)
    """By rows."""


class SharedMemory(GrpcUnary):
    """A request's rows are copied into its slot when it is sent, as a client with new rows would."""

    most_in_flight = 64

    def __init__(self, target: Target, signature: Signature, traffic: Traffic) -> None:
        super().__init__(target, signature, traffic)
        self._idle: deque[_Slot] = deque()
        self._slots: list[_Slot] = []
        self._input_bytes = self._output_bytes = 0
        self._control = Control(target, self.connection)

    def prepare(self, payload: Payload) -> Payload:
        self._input_bytes = max(self._input_bytes, payload.n_bytes)
        # An output whose size the server alone knows comes with the answer.
        n_bytes = sum((one.row_bytes or 0) * payload.n_rows for one in self._signature.outputs)
        self._output_bytes = max(self._output_bytes, n_bytes)
        return payload

    def send(self, prepared: Payload, done: Done) -> None:
        slot = self._idle.popleft() if self._idle else self._add_slot()
        at = 0
        for array in prepared.tensors:
            slot.memory[at : at + array.nbytes] = array.data
            at += array.nbytes
        request = slot.requests.get(prepared.n_rows)
        # Items of any length make requests of the same rows differ.
        if request is None or any(one.row_bytes is None for one in self._signature.inputs):
            request = slot.requests[prepared.n_rows] = self._encode(slot, prepared)

        def finish(failure: Failure | None) -> None:
            self._idle.append(slot)
            done(failure)

        super().send(request, finish)

    def close(self) -> None:
        for slot in self._slots:
            self._control.unregister(slot.name)
            slot.memory.close()
        self._slots.clear()
        super().close()

    def _add_slot(self) -> _Slot:
        name = f"{region_prefix(os.getpid())}{len(self._slots)}"
        size = -(-(self._input_bytes + self._output_bytes) // ALIGNMENT) * ALIGNMENT
        path = f"{FOLDER}/{name}"
        handle = None
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            os.posix_fallocate(handle, 0, size)  # a full /dev/shm is an error here, not a signal later
            memory = mmap.mmap(handle, size)
            self._control.register(name, size)
        except OSError as error:
            raise LoadError(
                f"expected {size} bytes of shared memory, got {error.strerror}; enlarge {FOLDER}"
            ) from error
        finally:
            if handle is not None:
                os.close(handle)
                os.unlink(path)
        slot = _Slot(name, memory)
        self._slots.append(slot)
        return slot

    def _encode(self, slot: _Slot, payload: Payload) -> bytes:
        head = request_head(self._target, self._signature, payload.n_rows)
        at = 0
        for entry, array in zip(head.inputs, payload.tensors, strict=True):
            _place(entry, slot.name, at, array.nbytes)
            at += array.nbytes
        at = self._input_bytes
        for entry, output in zip(head.outputs, self._signature.outputs, strict=True):
            if output.row_bytes is not None:
                _place(entry, slot.name, at, output.row_bytes * payload.n_rows)
                at += output.row_bytes * payload.n_rows
        return bytes(head.SerializeToString())


class Control:
    """Registers and unregisters regions."""

    def __init__(self, target: Target, connection: Connection) -> None:
        self._target = target
        self._metadata = key_metadata(target.url, target.key_file)
        self._connection = connection

    def register(self, name: str, size: int) -> None:
        request = service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", offset=0, byte_size=size)
        try:
            self._call("SystemSharedMemoryRegister", request)
        except RequestTimeout:  # over a connection that had gone dead, perhaps; it may have arrived
            self.unregister(name)
            self._call("SystemSharedMemoryRegister", request)

    def unregister(self, name: str) -> None:
        """Harmless where the server is gone or knows no such region."""
        request = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
        with contextlib.suppress(BlobError):
            self._call("SystemSharedMemoryUnregister", request)

    def unregister_all(self, pid: int) -> None:
        """What a process that was killed has left registered."""
        try:
            reply = self._call("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest())
        except BlobError:
            return
        for name in [name for name in reply.regions if name.startswith(region_prefix(pid))]:
            self.unregister(name)

    def _call(self, method: str, request: Any) -> Any:
        return self._connection.call(method, request, model=self._target.model, timeout_s=5.0, metadata=self._metadata)


def region_prefix(pid: int) -> str:
    return f"blobzero-load-{pid}-"


def _place(entry: Any, region: str, offset: int, n_bytes: int) -> None:
    entry.parameters["shared_memory_region"].string_param = region
    entry.parameters["shared_memory_offset"].int64_param = offset
    entry.parameters["shared_memory_byte_size"].int64_param = n_bytes
