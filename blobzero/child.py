# SPDX-License-Identifier: Apache-2.0
"""A verb as part of another one: `python -m blobzero.child match ...` ends when its standard input closes.

Whoever starts it keeps the other end of the pipe, so it never outlives them, however they end.
"""

import os
import signal
import sys
import threading
from types import FrameType

from blobzero.cli import main

STARTER_IS_GONE = 143


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(STARTER_IS_GONE)  # through the main thread's context managers


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.exit(main())
