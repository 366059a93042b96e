# SPDX-License-Identifier: Apache-2.0
"""Cythonize mcts_ext, after `contract.pxd` is written; everything else stands in pyproject.toml.

Three environment variables change the build:

- `BLOBZERO_MARCH` names the processor to compile for (default `native`; `x86-64-v3` for images that travel).
- `BLOBZERO_DEBUG=1` turns on checks of indices and divisions (the suite passes both ways).
- `BLOBZERO_SANITIZE=1` builds with AddressSanitizer and UBSan (`make sanitize`): what they find ends the process.
  Python's own flags say `-fwrapv`, under which signed numbers may overflow; that is undone.
"""

import os
import runpy
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

march = os.environ.get("BLOBZERO_MARCH", "native")
checked = os.environ.get("BLOBZERO_DEBUG", "0") == "1"
sanitized = os.environ.get("BLOBZERO_SANITIZE", "0") == "1"

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
sanitizers = []
if sanitized:
    sanitizers = ["-fsanitize=address,undefined,float-divide-by-zero,float-cast-overflow", "-fno-sanitize-recover=all"]
    flags += [*sanitizers, "-fno-wrapv", "-fno-omit-frame-pointer", "-O0", "-g1"]

# The numbers of contract.py for Cython. Written only when they change: every module is older than a new file.
numbers = {name: value for name, value in runpy.run_path("mcts_ext/contract.py").items() if type(value) is int}
declared = "# SPDX-License-Identifier: Apache-2.0\n# Written by setup.py from contract.py.\n\ncdef enum:\n"
declared += "".join(f"    {name} = {value}\n" for name, value in numbers.items())
declaration = Path("mcts_ext/contract.pxd")
if not declaration.exists() or declaration.read_text() != declared:
    declaration.write_text(declared)

extensions = [
    Extension(f"mcts_ext.{path.stem}", [str(path)], extra_compile_args=flags, extra_link_args=sanitizers)
    for path in sorted(Path("mcts_ext").glob("*.pyx"))
]
setup(ext_modules=cythonize(extensions, compiler_directives=directives, nthreads=os.cpu_count() or 1))
