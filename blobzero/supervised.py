# SPDX-License-Identifier: Apache-2.0
"""A verb as part of another one: `python -m blobzero.supervised match ...` ends when its standard input closes.

Whoever starts it keeps the other end of the pipe, so it never outlives them, however they end. It ends at once, as if
killed (clients/starter.py says why).
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
    from blobzero.cli import main  # while it is already seen whether the starter is there

    sys.exit(main())
