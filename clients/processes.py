# SPDX-License-Identifier: Apache-2.0
"""Commands that start our modules with this interpreter, whatever the working folder."""

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
"""Folder of our packages: a checkout, or site-packages."""

RUN: Final = """
import runpy, sys
root, module = sys.argv[1:3]
if root not in sys.path:
    sys.path.insert(0, root)
del sys.argv[1:3]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module like `python -m`, without the working folder in `sys.path`.

    `-P` excludes it, so that a user's `queue.py` does not shadow the standard library's; `ROOT` is added instead.
    """
    return [sys.executable, "-P", "-c", RUN, str(ROOT), module, *arguments]
