# SPDX-License-Identifier: Apache-2.0
"""A verb as part of another one: `python -m blobzero.child match ...` ends when its standard input closes.

Whoever starts it keeps the other end of the pipe, so it never outlives them, however they end. It ends at once, as if
killed: an exception thrown into the main thread may meet gRPC with a lock half taken, whose close then waits for ever.
"""

import os
import sys
import threading

from blobzero.cli import main

STARTER_IS_GONE = 143


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(STARTER_IS_GONE)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.exit(main())
