# SPDX-License-Identifier: Apache-2.0
"""One gRPC channel to a Triton server."""

from pathlib import Path
from typing import Final

from clients.address import join_url, split_url
from clients.keys import GRPC_HEADER, find_key
from clients.triton.protocol import grpc

CHANNEL_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 2000),  # in fact the timeout of one connection attempt
    ("grpc.use_local_subchannel_pool", 1),  # else channels to the same server share their backoff
    ("grpc.enable_http_proxy", 0),  # else http_proxy applies even to loopback
    ("grpc.enable_retries", 0),  # the callers retry and log it
)


def open_channel(url: str) -> grpc.Channel:
    """Open a channel to HOST:PORT ([HOST]:PORT for IPv6); it connects on first use.

    Raises:
        InvalidConfig: if `url` is malformed.
    """
    return grpc.insecure_channel(join_url(*split_url(url)), options=CHANNEL_OPTIONS)


def key_metadata(url: str, key_file: Path | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that authorizes calls of the control API; empty without a key (`find_key`).

    Raises:
        KeyUnreadable: if there is no key in the file.
    """
    key = find_key(url, key_file)
    return () if key is None else ((GRPC_HEADER, key),)
