# SPDX-License-Identifier: Apache-2.0
"""One gRPC channel to a Triton server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from clients.address import join_url, split_url
from clients.keys import GRPC_HEADER, find_key
from clients.triton.failures import classify
from clients.triton.protocol import grpc

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


def open_channel(url: str) -> grpc.Channel:
    """Open a channel to HOST:PORT ([HOST]:PORT in IPv6); it connects when it is used.

    Raises:
        InvalidConfig: not HOST:PORT.
    """
    return grpc.insecure_channel(join_url(*split_url(url)), options=CHANNEL_OPTIONS)


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
