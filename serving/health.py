# SPDX-License-Identifier: Apache-2.0
"""`python -m serving.health HOST:PORT MODEL`: status 0 if the server there has the model ready, over gRPC.

A health check runs every few seconds on cores that others need, so this imports gRPC and nothing more.
"""

import sys

import grpc

READY = "/inference.GRPCInferenceService/ModelReady"
TIMEOUT_S = 2.0


def is_ready(url: str, model: str) -> bool:
    """Whether it says so in time."""
    name = model.encode()
    request = b"\x0a" + bytes([len(name)]) + name  # a protobuf message: its field 1, the model's name
    with grpc.insecure_channel(url, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer: bytes = channel.unary_unary(READY)(request, timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
    return answer == b"\x08\x01"  # field 1 is true


if __name__ == "__main__":
    sys.exit(0 if is_ready(*sys.argv[1:]) else 1)
