# SPDX-License-Identifier: Apache-2.0
"""The key of the control API: who does not have it asks for evaluations, and changes nothing."""

import re
from pathlib import Path
from typing import Final

from serving.errors import KeyUnreadable

RESTRICTED: Final = "model-repository,shared-memory,trace,logging"
"""What Triton guards, of what its `--help` lists. Inference, health, metadata and statistics stay open."""


def restrictions(key_file: Path) -> list[str]:
    """Triton's options for a guarded control API, over gRPC and over HTTP.

    A caller sends the key as `triton-grpc-protocol-admin-key` in gRPC's metadata, or as HTTP's header `admin-key`.

    Raises:
        KeyUnreadable: no such file, or no key in it.
    """
    try:
        key = key_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnreadable(
            f"expected a file with a key at {key_file}, got {error}; write one, or name another"
        ) from error
    if not re.fullmatch(r"[A-Za-z0-9_-]{16,}", key):  # ":" and "=" mean something in Triton's option
        raise KeyUnreadable(
            f"expected a key of 16 or more letters, digits, - and _ in {key_file}, got {len(key)} characters; "
            "python3 -c 'import secrets; print(secrets.token_hex())' draws one"
        )
    return [
        f"--{option}={RESTRICTED}:admin-key={key}" for option in ("grpc-restricted-protocol", "http-restricted-api")
    ]
