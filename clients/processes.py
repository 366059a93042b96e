# SPDX-License-Identifier: Apache-2.0
"""How a Python process of ours is started: with this interpreter and our own packages, whatever the working folder."""

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
"""Where our packages are: a checkout, or site-packages."""

RUN: Final = """
import runpy, sys
root, module = sys.argv[1:3]
if root not in sys.path:
    sys.path.insert(0, root)
del sys.argv[1:3]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module as `python -m` does.

    But for the working folder, which `-P` leaves out: a `queue.py` of the user's there is not the standard library's.
    Our packages are found even so where they are not installed.
    """
    return [sys.executable, "-P", "-c", RUN, str(ROOT), module, *arguments]
