# SPDX-License-Identifier: Apache-2.0
"""Classification of failed calls: the error each becomes, and whether a retry can help.

| status | retried | final error |
| --- | --- | --- |
| UNAVAILABLE: no connection, connection lost, stopping, queue full | yes | ServerUnreachable |
| DEADLINE_EXCEEDED | yes | RequestTimeout |
| "no available versions": stopping, or the model is being reloaded | yes | ModelNotFound |
| other NOT_FOUND | no | ModelNotFound |
| "protocol is restricted": the control API requires a key | no | KeyRefused |
| INVALID_ARGUMENT, malformed requests, unknown shared memory regions | no | RequestRejected |
| UNIMPLEMENTED, UNAUTHENTICATED, PERMISSION_DENIED: not our Triton | no | ServerFailed |
| INTERNAL "Stub process is not healthy" (its supervisor restarts it), and anything else | yes | ServerFailed |

Retries are always safe because inference has no side effects on the server; the table states where they can help.
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
# the model; an unloaded version; the statistics API

_RESTRICTED: Final = "protocol is restricted"
_INVALID: Final = ("Unable to parse request", "Unable to find shared memory region")
# Triton's status codes are INTERNAL and NOT_FOUND

_ADVICE: Final[dict[type[EvaluatorError], str]] = {
    ServerUnreachable: "expected a Triton server at {url}; start one (blobzero serve) or check its gRPC endpoint",
    RequestTimeout: "expected a response from {url} in time; the server hangs or is overloaded",
    ModelNotFound: "expected model {model} at {url}; publish it (blobzero publish) or choose another",
    KeyRefused: "expected the key of the server at {url}; pass its file (--key-file), or run as the server's user",
    RequestRejected: "expected {url} to accept the request; serve a model exported by this version of blobzero",
    ServerFailed: "expected {url} to answer; see the server's log",
}


@dataclass(frozen=True)
class Failure:
    """Classified failure of one call."""

    kind: type[EvaluatorError]
    """Error to raise once retries are exhausted."""
    reason: str
    """Status and details, in one line."""
    may_pass: bool
    """Whether a retry can succeed."""

    def error(self, *, url: str, model: str, waited_s: float = 0.0) -> EvaluatorError:
        """Return the error for users: expected, got, what to do."""
        expected, _, advice = _ADVICE[self.kind].format(url=url, model=model).partition("; ")
        duration = f" for {waited_s:.1f} s" if waited_s > 0 else ""
        return self.kind(f"{expected}, got {self.reason}{duration}; {advice}")


def classify(error: grpc.RpcError) -> Failure:
    """Classify a failed call."""
    code, details = error.code(), " ".join((error.details() or "no details").split())
    reason = f"{code.name}: {details[:300]}"
    if any(words in details for words in _NO_VERSION):
        return Failure(ModelNotFound, reason, may_pass=True)
    if _RESTRICTED in details:  # Triton's status code is UNAVAILABLE
        return Failure(KeyRefused, reason, may_pass=False)
    if any(words in details for words in _INVALID):
        return Failure(RequestRejected, reason, may_pass=False)
    if code in _FINAL:
        return Failure(_FINAL[code], reason, may_pass=False)
    return Failure(_PASSING.get(code, ServerFailed), reason, may_pass=True)
