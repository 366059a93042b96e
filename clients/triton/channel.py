# SPDX-License-Identifier: Apache-2.0
"""One gRPC channel to a Triton server, and what the failures on it mean.

| what the server says | repeated | if it stays so |
| --- | --- | --- |
| UNAVAILABLE: no connection, connection lost, stopping, queue full | yes | ServerUnreachable |
| DEADLINE_EXCEEDED | yes | RequestTimeout |
| "no available versions": stopping, or the model is being loaded again | yes | ModelNotFound |
| NOT_FOUND otherwise | no | ModelNotFound |
| "protocol is restricted": the control API wants its key | no | KeyRefused |
| INVALID_ARGUMENT; bytes that are no request; a shared memory region that is not there | no | RequestRejected |
| no Triton, or one that may not be asked | no | ServerFailed |
| INTERNAL "Stub process is not healthy" (its supervisor restarts it), and anything else | yes | ServerFailed |

Repeating is always safe, for inference changes nothing on the server; the table says where it can help.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# gRPC's event-engine client costs a request of 512 rows 70 to 140 us more CPU (docs/experiments/request-cost.md).
# Both variables are read when grpc loads.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
# While no call is in flight nobody else looks whether a connection is there; every 5 s, gRPC's default, is after the
# attempt has been given up, so a client could miss a server that is back for as long as it liked.
os.environ.setdefault("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "100")

import grpc

from clients.address import join_url, split_url
from clients.errors import (
    EvaluatorError,
    KeyRefused,
    ModelNotFound,
    RequestRejected,
    RequestTimeout,
    ServerFailed,
    ServerUnreachable,
)
from clients.keys import GRPC_HEADER, find_key

CHANNEL_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 2000),  # gRPC's name for how long one attempt to connect may take
    ("grpc.use_local_subchannel_pool", 1),  # else another channel's backoff to the same server is shared
    ("grpc.enable_http_proxy", 0),  # else http_proxy and its like send even loopback to the proxy
    ("grpc.enable_retries", 0),  # the callers repeat, and say so
)

_FINAL: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: RequestRejected,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.UNIMPLEMENTED: ServerFailed,
    grpc.StatusCode.UNAUTHENTICATED: ServerFailed,
    grpc.StatusCode.PERMISSION_DENIED: ServerFailed,
}
_PASSING: Final = {
    grpc.StatusCode.UNAVAILABLE: ServerUnreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: RequestTimeout,
}
_NO_VERSION: Final = ("has no available versions", "is not at ready state", "is not available")
# of the model; of a version that was dropped; from the statistics

_RESTRICTED: Final = "protocol is restricted"
_WRONG: Final = ("Unable to parse request", "Unable to find shared memory region")
# INTERNAL and NOT_FOUND, as Triton has them

_ADVICE: Final[dict[type[EvaluatorError], str]] = {
    ServerUnreachable: "expected a Triton server at {url}; start one (blobzero serve) or name its gRPC endpoint",
    RequestTimeout: "expected answers from {url} in time; the server hangs or has more work than it can do",
    ModelNotFound: "expected model {model} at {url}; publish it (blobzero publish) or name another",
    KeyRefused: "expected the key of the server at {url}; name its file (--key-file), or ask as its user",
    RequestRejected: "expected {url} to take the request; serve a model exported by this version of blobzero",
    ServerFailed: "expected {url} to answer; see the server's log",
}


@dataclass(frozen=True)
class Failure:
    """What one failed call means."""

    kind: type[EvaluatorError]
    """The error to raise when it is time to."""
    reason: str
    """One line: status and the server's words."""
    may_pass: bool
    """Whether the same call can succeed later."""

    def error(self, *, url: str, model: str, waited_s: float = 0.0) -> EvaluatorError:
        """The error for people: expected, got, what to do."""
        expected, _, advice = _ADVICE[self.kind].format(url=url, model=model).partition("; ")
        patience = f" for {waited_s:.1f} s" if waited_s > 0 else ""
        return self.kind(f"{expected}, got {self.reason}{patience}; {advice}")


def open_channel(url: str) -> grpc.Channel:
    """Open a channel to HOST:PORT ([HOST]:PORT in IPv6); it connects when it is used.

    Raises:
        InvalidConfig: not HOST:PORT.
    """
    return grpc.insecure_channel(join_url(*split_url(url)), options=CHANNEL_OPTIONS)


def classify(error: grpc.RpcError) -> Failure:
    """Say what a failed call means."""
    code, details = error.code(), " ".join((error.details() or "no details").split())
    reason = f"{code.name}: {details[:300]}"
    if any(words in details for words in _NO_VERSION):
        return Failure(ModelNotFound, reason, may_pass=True)
    if _RESTRICTED in details:  # UNAVAILABLE, as Triton has it
        return Failure(KeyRefused, reason, may_pass=False)
    if any(words in details for words in _WRONG):
        return Failure(RequestRejected, reason, may_pass=False)
    if code in _FINAL:
        return Failure(_FINAL[code], reason, may_pass=False)
    return Failure(_PASSING.get(code, ServerFailed), reason, may_pass=True)


def key_metadata(url: str, key_file: Path | None) -> tuple[tuple[str, str], ...]:
    """The metadata by which a server knows who may use its control API; none where there is no key (`find_key`).

    Raises:
        KeyUnreadable: no key in the file.
    """
    key = find_key(url, key_file)
    return () if key is None else ((GRPC_HEADER, key),)


def call_once(
    method: Callable[..., Any],
    request: Any,
    *,
    url: str,
    model: str,
    timeout_s: float,
    metadata: tuple[tuple[str, str], ...] = (),
) -> Any:
    """Call one method, without repeats.

    Raises:
        EvaluatorError: the one its failure means.
    """
    try:
        return method(request, timeout=timeout_s, metadata=metadata)
    except grpc.RpcError as error:
        raise classify(error).error(url=url, model=model) from error
