# SPDX-License-Identifier: Apache-2.0
"""`python -m serving.health HOST:PORT MODEL`: status 0 if the model is ready on the server, over gRPC.

A health check runs every few seconds, so this imports only gRPC to save CPU.
"""

import sys

import grpc

READY = "/inference.GRPCInferenceService/ModelReady"
TIMEOUT_S = 2.0


def is_ready(url: str, model: str) -> bool:
    """Return whether the server reports the model as ready within the timeout."""
    name = model.encode()
    request = b"\x0a" + bytes([len(name)]) + name  # protobuf: field 1 is the model's name
    with grpc.insecure_channel(url, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer: bytes = channel.unary_unary(READY)(request, timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
    return answer == b"\x08\x01"  # field 1 is true


if __name__ == "__main__":
    sys.exit(0 if is_ready(*sys.argv[1:]) else 1)
