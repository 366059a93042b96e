# SPDX-License-Identifier: Apache-2.0
"""What the failure of a call means, and whether repeating the call can help.

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

from dataclasses import dataclass
from typing import Final

from clients.errors import (
    EvaluatorError,
    KeyRefused,
    ModelNotFound,
    RequestRejected,
    RequestTimeout,
    ServerFailed,
    ServerUnreachable,
)
from clients.triton.protocol import grpc

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
