# SPDX-License-Identifier: Apache-2.0
"""The private folder of one server. All that Triton is told by path lies in it, under names of ours.

Triton's Python backend starts its stubs through a shell and quotes nothing: a space in the path of a model splits the
command, and `$(...)` in it is run. So no path of the user's reaches Triton. Links do, which need no quoting whatever
they point to, and a `:` in a path that they point to does not cut PATH or LD_LIBRARY_PATH in two.

```
backends/python/       libtriton_python.so, triton_python_backend_utils.py, triton_python_backend_stub
backends/openvino/     model.py     "Python-based backends": what `backend: "openvino"` of a config.pbtxt selects here
backends/onnxruntime/  model.py
backends/pytorch/      model.py
models                 -> the model repository
serving, clients, ...  -> the packages that model.py imports: this folder is the stubs' working directory
interpreter            -> the environment of the running Python; its `python3` is the first on PATH
libraries-0, ...       -> folders of shared libraries
```
The backends are copies, because Triton refuses links out of its backend directory.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from serving.errors import ServerNotInstalled, ServingError
from serving.install import BACKENDS, PROJECT, Installation, missing_libraries

ROOM = "make room there, or choose another place (TMPDIR, the log file)"
SAFE = re.compile(r"[A-Za-z0-9_./+-]+")
"""Paths that a shell takes as they are."""


def new_folder() -> Path:
    """Make the folder: in the one for temporary files, or in another where a shell would not take its path as it is.

    Raises:
        ServingError: none of them can be written.
    """
    reasons = []
    places = dict.fromkeys(Path(place).resolve() for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"))
    for place in places:
        if not SAFE.fullmatch(str(place)):
            reasons.append(f"characters that a shell reads as its own in {place}")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="blobzero-triton-", dir=place))
        except OSError as error:
            reasons.append(str(error))
    raise ServingError(f"expected a temporary folder, got: {'; '.join(reasons)}; {ROOM}")


def lay_out(folder: Path, installation: Installation, repository: Path) -> dict[str, str]:
    """Fill the folder; the environment that the server and its stubs start with.

    Raises:
        ServerNotInstalled: a shared library of the stub is missing.
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
    """The wheel's libraries, and this interpreter.

    A stub finds its packages through the first `python3` on PATH; it ignores PYTHONPATH (tried).
    """
    libraries = []
    for number, target in enumerate(installation.libraries):
        link = folder / f"libraries-{number}"
        link.symlink_to(target)
        libraries.append(str(link))
    programs = Path(sys.executable).absolute().parent
    interpreter = folder / "interpreter"
    interpreter.symlink_to(programs.parent)  # not to `bin` itself: Python finds its environment beside that
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join([*libraries, inherited] if inherited else libraries),
        "PATH": os.pathsep.join([str(interpreter / programs.name), os.environ.get("PATH", os.defpath)]),
    }
