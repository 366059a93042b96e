# SPDX-License-Identifier: Apache-2.0
"""Limits of open files and processes."""

import os
import resource
from typing import Final

from mcts_ext.errors import InvalidConfig

FILES_PER_CHILD: Final = 3
"""Descriptors per child process: two pipe ends, and a log or a pidfd."""
FILES_BESIDES: Final = 32
"""Descriptors for a server's process, channels, shards and libraries."""


def is_of_processes(error: BaseException) -> bool:
    """Return whether a fork or a thread failed at the process limit (`ulimit -u`, or the container's)."""
    return isinstance(error, BlockingIOError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


def allow_open_files(children: int, *, flag: str) -> None:
    """Raise this process's soft limit, which children inherit, to the hard limit.

    Raises:
        InvalidConfig: if the hard limit is too low for this number of children.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = len(os.listdir("/proc/self/fd")) + FILES_PER_CHILD * children + FILES_BESIDES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise InvalidConfig(
            f"expected a limit of {needed} or more open files for {flag} {children}, got {hard}; "
            f"raise it (ulimit -Hn), or use fewer {flag}"
        )
