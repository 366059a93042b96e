# SPDX-License-Identifier: Apache-2.0
"""Cythonize mcts_ext; everything else stands in pyproject.toml.

Two environment variables change the build:

- `BLOBZERO_MARCH` names the processor to compile for (default `native`; `x86-64-v3` for images that travel).
- `BLOBZERO_DEBUG=1` turns on checks of indices and divisions (the suite passes both ways).
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

march = os.environ.get("BLOBZERO_MARCH", "native")
checked = os.environ.get("BLOBZERO_DEBUG", "0") == "1"

directives = {
    "language_level": 3,
    "boundscheck": checked,
    "wraparound": checked,
    "initializedcheck": checked,
    "cdivision": not checked,
    "overflowcheck": False,  # hashes and random numbers wrap on purpose
    "embedsignature": True,
}
# No fused multiply-add across expressions: the same seed gives the same tree on every x86-64 machine.
flags = ["-O3", f"-march={march}", "-ffp-contract=off", "-fno-math-errno", "-Wno-unused-function"]
if checked:
    flags += ["-O1", "-g", "-UNDEBUG"]

extensions = [
    Extension(f"mcts_ext.{path.stem}", [str(path)], extra_compile_args=flags)
    for path in sorted(Path("mcts_ext").glob("*.pyx"))
]
setup(ext_modules=cythonize(extensions, compiler_directives=directives, nthreads=os.cpu_count() or 1))
