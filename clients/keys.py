# SPDX-License-Identifier: Apache-2.0
"""The key of a server's control API: who does not have it asks for evaluations, and changes nothing.

Every server that we start has one: the user's own, out of a file, or one drawn for this start. A drawn key lies in a
folder that only its user can read, under the server's address, and is gone with the server; our clients on this
machine look for it there.
"""

import os
import re
import secrets
import shlex
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from clients.address import is_loopback, join_url, split_url
from clients.files import read_small, reason
from mcts_ext.errors import BlobError, InvalidConfig

GRPC_HEADER: Final = "triton-grpc-protocol-admin-key"
"""In gRPC's metadata, what carries it."""
HTTP_HEADER: Final = "admin-key"
RESTRICTED: Final = "model-repository,shared-memory,trace,logging"
"""What Triton guards, of what its `--help` lists. Inference, health, metadata and statistics stay open."""
MOST_BYTES: Final = 4096


class KeyUnreadable(InvalidConfig):
    """No key in the file named, or no place for one."""


def read_key(path: Path) -> str:
    """The key in a file.

    Raises:
        KeyUnreadable: no such file, or no key in it.
    """
    try:
        key = read_small(path, most_bytes=MOST_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnreadable(f"expected a file with a key at {path}, got {reason(error)}; {_cure(path)}") from error
    if not re.fullmatch(r"[A-Za-z0-9_-]{16,}", key):  # ":" and "=" mean something in Triton's option
        got = f"{len(key)} characters" if len(key) < 16 else f"others among its {len(key)} characters"
        raise KeyUnreadable(
            f"expected a key of 16 or more letters, digits, - and _, and nothing else, in {path}, got {got}; "
            f"{_cure(path)}"
        )
    return key


def exposure(path: Path | None) -> str:
    """A line about a key file of this user's that others can read too; empty where there is nothing to say.

    A file of another owner is theirs to answer for: Docker mounts a secret as root's, readable by all in the container.
    """
    with suppress(OSError):
        found = path.stat() if path is not None else None
        if found and stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & 0o077:
            return (
                f"the key in {path} is open to other users (mode {stat.S_IMODE(found.st_mode):o}); "
                f"chmod 600 {shlex.quote(str(path))}"
            )
    return ""


def find_key(url: str, key_file: Path | None) -> str | None:
    """The key for the server at HOST:PORT: the one in `key_file`, else the one that a server of this user on this
    machine has drawn; None where there is neither. A drawn key never leaves the machine.

    Raises:
        KeyUnreadable: no key in `key_file`.
    """
    if key_file is not None:
        return read_key(key_file)
    host, port = split_url(url)
    if is_loopback(host):
        with suppress(BlobError):  # nobody's, or not to be trusted; the server will say that it wants one
            _check_private(runtime_folder())
            return read_key(drawn_key_file(host, port))
    return None


def draw_key() -> str:
    """A fresh key, of 256 random bits."""
    return secrets.token_hex(32)


def drawn_key_file(host: str, port: int) -> Path:
    """Where the drawn key of the server that listens there is."""
    return runtime_folder() / join_url(host, port)


def leave_key(key: str, path: Path) -> None:
    """Write a drawn key to its `drawn_key_file`, for us alone to read.

    Raises:
        KeyUnreadable: there is no place that only we can read.
    """
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _check_private(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent)  # mode 600
        try:
            with open(handle, "w") as file:
                file.write(key)
            os.replace(name, path)  # over what a server that was killed has left
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise KeyUnreadable(f"expected to write a key to {path}, got {reason(error)}; make room there") from error


def runtime_folder() -> Path:
    """Where this user's drawn keys are: in XDG_RUNTIME_DIR, where that is this user's alone, else beside temporary
    files."""
    with suppress(KeyError, OSError, BlobError):
        base = Path(os.environ["XDG_RUNTIME_DIR"])
        if base.is_absolute():
            _check_private(base)
            return base / "blobzero"
    return Path(tempfile.gettempdir(), f"blobzero-{os.geteuid()}")


def _cure(path: Path) -> str:
    file = shlex.quote(str(path))
    return f"make one: (umask 077; python3 -c 'import secrets; print(secrets.token_hex())' >{file})"


def _check_private(folder: Path) -> None:
    """Raise `KeyUnreadable` unless it is a folder, no link, of this user alone."""
    try:
        found = folder.lstat()
    except OSError as error:
        raise KeyUnreadable(f"expected a folder {folder}, got {reason(error)}") from error
    kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no folder"
    mode = stat.S_IMODE(found.st_mode)
    if kind == "no folder" or found.st_uid != os.geteuid() or mode & 0o077:
        raise KeyUnreadable(
            f"expected {folder} to be a folder of user {os.geteuid()} alone (mode 700), got {kind} of user "
            f"{found.st_uid} with mode {mode:o}; remove it, or give a --key-file"
        )
