# SPDX-License-Identifier: Apache-2.0
"""Memory limits of this process, checked before large allocations."""

import os
import resource
from pathlib import Path

from mcts_ext.errors import InvalidConfig

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
OWN_SIZE = Path("/proc/self/statm")


def check_memory(n_bytes: int, *, of: str, processes: int = 1) -> None:
    """Raise InvalidConfig if `processes` times `n_bytes` exceeds the available memory; `of` names the consumer."""
    limit, source = available_memory(processes)
    if processes * n_bytes > limit:
        raise InvalidConfig(
            f"expected {of} to fit into {_gib(limit)}, {source}, got settings that need {_gib(processes * n_bytes)}; "
            "use fewer games, determinizations, candidates or simulations"
        )


def available_memory(processes: int = 1) -> tuple[int, str]:
    """Return the tightest memory limit of `processes` such processes in bytes, and its source in words.

    Candidates are the machine's memory, the limits of the cgroup and its ancestors, and `ulimit -v` of each process.
    Memory used by other processes is not subtracted: it may be free again in a moment.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    limits = [(os.sysconf("SC_PHYS_PAGES") * page, "the memory of this machine")]
    limits += [(limit, "the limit of its cgroup") for limit in _cgroup_limits()]
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        used = int(OWN_SIZE.read_text().split()[0]) * page
        limits.append((processes * max(address_space - used, 0), "the remainder of ulimit -v"))
    return min(limits)


def _cgroup_limits() -> list[int]:
    """Return the memory limits of this process's cgroup and its ancestors (versions 1 and 2)."""
    try:
        entries = [line.split(":", 2) for line in OWN_CGROUP.read_text().splitlines()]
    except OSError:
        return []
    limits = []
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
                limits.append(int((root / parent / name).read_text()))
            except (OSError, ValueError):  # the root group has no such file, and "max" means unlimited
                continue
    return limits


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"
