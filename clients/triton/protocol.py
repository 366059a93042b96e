# SPDX-License-Identifier: Apache-2.0
"""gRPC and the messages of Triton's protocol. Every other module takes them from here: gRPC reads its settings once."""

import os

# gRPC's event-engine client costs a request of 512 rows 70 to 140 us more CPU (docs/experiments/request-cost.md).
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
# With no call in flight, only this poll completes a connection. At gRPC's default of 5 s the attempt has timed out by
# then, so a client may never notice that the server is back.
os.environ.setdefault("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "100")

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

__all__ = ["grpc", "model_config_pb2", "service_pb2", "service_pb2_grpc"]
