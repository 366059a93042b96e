# SPDX-License-Identifier: Apache-2.0
"""What a process does whose starter is gone, as the end of its standard input tells it."""

import os
import time
from typing import Final, NoReturn

STARTER_IS_GONE: Final = 143
PARTING_S: Final = 1.5
"""What is finished can be written in so long; no process outlives its starter by more than two seconds."""


def leave(*, after_s: float = 0.0) -> NoReturn:
    """End this process, from whatever thread, as if it were killed; sooner if its main thread ends by itself.

    An exception thrown into the main thread may meet gRPC with a lock half taken, whose close then waits for ever.
    """
    time.sleep(after_s)
    os._exit(STARTER_IS_GONE)
