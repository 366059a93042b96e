# SPDX-License-Identifier: Apache-2.0
"""How much memory this process may take, and the refusal of what needs more, before any of it is taken."""

import os
import resource
from pathlib import Path

from mcts_ext.errors import InvalidConfig

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
OWN_SIZE = Path("/proc/self/statm")


def check_memory(n_bytes: int, *, of: str, processes: int = 1) -> None:
    """Raise InvalidConfig where so many processes, each of `n_bytes` for `of` (in words), need more than there is."""
    limit, whose = available_memory(processes)
    if processes * n_bytes > limit:
        raise InvalidConfig(
            f"expected {of} to fit into {_gib(limit)}, {whose}, got settings that need {_gib(processes * n_bytes)}; "
            "ask for fewer games, determinizations, candidates or simulations"
        )


def available_memory(processes: int = 1) -> tuple[int, str]:
    """The least of what bounds this process, and others like it, in bytes; and in words what bounds it.

    That is the machine's memory, a limit of its cgroup or of one above (containers and services), or what `ulimit -v`
    leaves to each process. Memory that others hold now is not taken off: it may be free again in a moment.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    limits = [(os.sysconf("SC_PHYS_PAGES") * page, "all that this machine has")]
    limits += [(limit, "the limit of its cgroup") for limit in _cgroup_limits()]
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        used = int(OWN_SIZE.read_text().split()[0]) * page
        limits.append((processes * max(address_space - used, 0), "what ulimit -v leaves"))
    return min(limits)


def _cgroup_limits() -> list[int]:
    """Limits of this process's cgroup and those above it, of version 2 and of version 1."""
    try:
        entries = [line.split(":", 2) for line in OWN_CGROUP.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, path in entries:
        if controllers == "":
            root, name = CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path(path.lstrip("/"))
        for parent in (group, *group.parents):
            try:
                found.append(int((root / parent / name).read_text()))
            except (OSError, ValueError):  # the root has none, and "max" is no limit
                continue
    return found


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"
