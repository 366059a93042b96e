# SPDX-License-Identifier: Apache-2.0
"""Runner of child processes that do not outlive their parent: `python -m clients.starter MODULE [ARGUMENTS]`.

The modules are workers, or `blobzero.cli` with a verb that is part of another one.
Standard input is a pipe whose other end the parent holds. Once it closes, for whatever reason, the process has
`PARTING_S` to end by itself. The watch starts before the module's imports, which take seconds on a busy machine.
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
"""Grace period to write finished work; no process outlives its parent by more than two seconds."""


def leave() -> NoReturn:
    """End this process at once, from any thread, as if it were killed.

    An exception raised in the main thread could interrupt gRPC while it takes a lock; its close would then hang.
    """
    os._exit(STARTER_IS_GONE)


def _watch() -> None:
    closing = select.poll()
    closing.register(sys.stdin.fileno(), 0)  # only POLLHUP, not data
    closing.poll()
    time.sleep(PARTING_S)
    leave()


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
