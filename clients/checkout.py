# SPDX-License-Identifier: Apache-2.0
"""What git says about the code that runs."""

import subprocess
from pathlib import Path
from typing import Final

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
