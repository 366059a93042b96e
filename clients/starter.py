# SPDX-License-Identifier: Apache-2.0
"""Run a module as a process that does not outlive its starter: `python -m clients.starter clients.selfplay.worker`.

Its standard input is a pipe whose other end the starter keeps; once that closes, however the starter ended, the process
has `PARTING_S` to end by itself. It is watched from before the module's imports, which take seconds on a busy machine.
"""

import os
import runpy
import select
import sys
import threading
import time
from typing import Final, NoReturn

STARTER_IS_GONE: Final = 143
PARTING_S: Final = 1.5
"""What is finished can be written in so long; no process outlives its starter by more than two seconds."""


def leave() -> NoReturn:
    """End this process at once, from whatever thread, as if it were killed.

    An exception thrown into the main thread may meet gRPC with a lock half taken, whose close then waits for ever.
    """
    os._exit(STARTER_IS_GONE)


def _watch() -> None:
    closing = select.poll()
    closing.register(sys.stdin.fileno(), 0)  # whatever may be read: only its end
    closing.poll()
    time.sleep(PARTING_S)
    leave()


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
