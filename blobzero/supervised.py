# SPDX-License-Identifier: Apache-2.0
"""Verb run by another verb: `python -m blobzero.supervised match ...` ends when its standard input closes.

The parent holds the other end of the pipe, so the process never outlives it. It ends at once, as if killed
(clients/starter.py explains why).
"""

import os
import sys
import threading

from clients.starter import leave


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    leave()


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    from blobzero.cli import main  # slow, so the parent is already being watched

    sys.exit(main())
