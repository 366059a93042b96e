# SPDX-License-Identifier: Apache-2.0
"""Limits of open files, of which each child process of ours costs its starter some, and of processes."""

import os
import resource
from typing import Final

from mcts_ext.errors import InvalidConfig

FILES_PER_CHILD: Final = 3
"""Two ends of pipes, and a log or what a worker's going needs."""
FILES_BESIDES: Final = 32
"""For a server's process, its channels, shards, and what libraries open."""


def is_of_processes(error: BaseException) -> bool:
    """Whether a fork or a thread met the limit of processes (`ulimit -u`, or a container's)."""
    return isinstance(error, BlockingIOError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


def allow_open_files(children: int, *, flag: str) -> None:
    """Raise this process's soft limit to the hard one, which children inherit.

    Raises:
        InvalidConfig: the hard limit is too low to start so many children.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = len(os.listdir("/proc/self/fd")) + FILES_PER_CHILD * children + FILES_BESIDES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise InvalidConfig(
            f"expected to be allowed {needed} open files for {flag} {children}, got a limit of {hard}; "
            f"raise it (ulimit -Hn), or use fewer {flag}"
        )
