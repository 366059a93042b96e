# SPDX-License-Identifier: Apache-2.0
"""`python -m serving`: `blobzero serve` for containers; copies the server's log to standard error."""

import sys
import threading
import time
from pathlib import Path

import tyro

from clients.keys import exposure
from mcts_ext.errors import BlobError
from serving.config import ServerConfig
from serving.embedded import serve

POLL_S = 0.2


def main() -> int:
    """Serve until SIGTERM; return the exit status."""
    config = tyro.cli(ServerConfig, prog="python -m serving", description=ServerConfig.__doc__)
    if config.log_file is not None:
        threading.Thread(target=_follow, args=(config.log_file,), daemon=True).start()
    if line := exposure(config.key_file):
        print(f"serving: {line}", file=sys.stderr)
    try:
        return serve(config)
    except BlobError as error:
        print(f"serving: {error}", file=sys.stderr)
        return 1


def _follow(path: Path) -> None:
    """Copy lines appended to a file to standard error."""
    path.touch()
    with path.open(errors="replace") as log:
        while True:
            sys.stderr.write(log.read())
            sys.stderr.flush()
            time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
