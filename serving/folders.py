# SPDX-License-Identifier: Apache-2.0
"""Private folder of one server, which contains every path passed to Triton.

Triton's Python backend starts its stubs through a shell without quoting: a space in the path of a model splits the
command, and `$(...)` in it is executed. So Triton never sees a user's path, only links with safe names; a `:` in their
targets does not split PATH or LD_LIBRARY_PATH either.

```
backends/python/       libtriton_python.so, triton_python_backend_utils.py, triton_python_backend_stub
backends/openvino/     model.py     "Python-based backend", selected by `backend: "openvino"` in a config.pbtxt
backends/onnxruntime/  model.py
backends/pytorch/      model.py
models                 -> the model repository
serving, clients, ...  -> packages imported by model.py; this folder is the stubs' working directory
interpreter            -> environment of the running Python; its `python3` is the first on PATH
libraries-0, ...       -> folders of shared libraries
```
The backends are copies because Triton rejects links that leave its backend directory.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from serving.errors import ServerNotInstalled, ServingError
from serving.install import BACKENDS, PROJECT, Installation, missing_libraries

ROOM = "free some space, or choose another path (TMPDIR, the log file)"
SAFE = re.compile(r"[A-Za-z0-9_./+-]+")
"""Paths that need no quoting in a shell."""


def new_folder() -> Path:
    """Create the folder in the temporary folder, or elsewhere if that path is not safe in a shell.

    Raises:
        ServingError: if no candidate is safe and writable.
    """
    reasons = []
    parents = dict.fromkeys(Path(path).resolve() for path in (tempfile.gettempdir(), "/tmp", "/var/tmp"))
    for parent in parents:
        if not SAFE.fullmatch(str(parent)):
            reasons.append(f"special characters of the shell in {parent}")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="blobzero-triton-", dir=parent))
        except OSError as error:
            reasons.append(str(error))
    raise ServingError(f"expected a temporary folder, got: {'; '.join(reasons)}; {ROOM}")


def lay_out(folder: Path, installation: Installation, repository: Path) -> dict[str, str]:
    """Fill the folder; return the environment of the server and its stubs.

    Raises:
        ServerNotInstalled: if a shared library of the stub is missing.
    """
    backends = folder / "backends"
    python = backends / "python"
    python.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy2(installation.python_backend / name, python / name)
    shutil.copy2(installation.stub, python / installation.stub.name)
    ours = PROJECT / "serving" / "backends"
    for name in BACKENDS:
        (backends / name).mkdir()
        shutil.copy2(ours / name / "model.py", backends / name / "model.py")
    (folder / "models").symlink_to(repository.resolve())
    for package in ("serving", "clients", "mcts_ext"):
        (folder / package).symlink_to(PROJECT / package)
    environment = _environment(folder, installation)
    missing = missing_libraries(python / installation.stub.name, environment)
    if missing:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise ServerNotInstalled(
            f"expected {', '.join(missing)} for Triton's Python backend, got none on the library path; "
            f"on Debian: apt-get install libpython{version}"
        )
    return environment


def _environment(folder: Path, installation: Installation) -> dict[str, str]:
    """Return the environment with the wheel's libraries and this interpreter.

    A stub finds its packages through the first `python3` on PATH; it ignores PYTHONPATH.
    """
    libraries = []
    for number, target in enumerate(installation.libraries):
        link = folder / f"libraries-{number}"
        link.symlink_to(target)
        libraries.append(str(link))
    programs = Path(sys.executable).absolute().parent
    interpreter = folder / "interpreter"
    interpreter.symlink_to(programs.parent)  # not `bin` itself: Python locates its environment relative to it
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join([*libraries, inherited] if inherited else libraries),
        "PATH": os.pathsep.join([str(interpreter / programs.name), os.environ.get("PATH", os.defpath)]),
    }
