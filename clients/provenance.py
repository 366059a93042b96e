# SPDX-License-Identifier: Apache-2.0
"""Provenance of measurements: the machine and the git commit."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Final

from clients.precision import cpu_info

TIMEOUT_S: Final = 10.0


def git(*arguments: str) -> str | None:
    """Run git in this checkout and return its stripped output; None outside a checkout."""
    try:
        completed = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout.strip() if completed.returncode == 0 else None


def machine() -> dict[str, Any]:
    """Describe this machine."""
    model = cpu_info("model name") or platform.processor() or platform.machine()
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "gpu": None, "python": platform.python_version()}
