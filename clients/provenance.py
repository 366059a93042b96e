# SPDX-License-Identifier: Apache-2.0
"""Where a figure comes from: the machine, and what git says about the code that runs."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Final

TIMEOUT_S: Final = 10.0


def git(*arguments: str) -> str | None:
    """What git prints for this checkout, stripped; None outside one."""
    try:
        found = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "gpu": None, "python": platform.python_version()}
