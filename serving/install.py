# SPDX-License-Identifier: Apache-2.0
"""Where the pieces of Triton are on this machine: the binary and its Python backend out of the wheel `nvidia-pytriton`.

Triton finds a backend by folder name. Ours is laid out in a temporary folder, of copies: links out of it are refused.

```
python/       libtriton_python.so, triton_python_backend_utils.py, triton_python_backend_stub (of the running Python)
openvino/     model.py      "Python-based backends": what `backend: "openvino"` of a config.pbtxt selects here
onnxruntime/  model.py
pytorch/      model.py
```
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ServerNotInstalled

BACKENDS = {"openvino": "model.onnx", "onnxruntime": "model.onnx", "pytorch": "model.pt"}
"""By name, the file of a version that each reads."""

PROJECT = Path(__file__).resolve().parent.parent  # where `import serving` works: the stubs' working directory
INSTALL_HINT = "install it with: pip install 'blobzero[serve]'"


@dataclass(frozen=True)
class Installation:
    """The pieces, checked to be there."""

    server: Path  # the tritonserver binary
    python_backend: Path  # folder of libtriton_python.so
    stub: Path  # the backend process for the running Python version
    environment: dict[str, str]  # what the server and its stubs are started with


def find_installation() -> Installation:
    """Find the wheel's pieces and check that the stub's shared libraries are there.

    Raises:
        ServerNotInstalled: something is missing; the text says what to install.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise ServerNotInstalled(f"expected the package nvidia-pytriton (it carries Triton), got none; {INSTALL_HINT}")
    site_packages = Path(spec.origin).parent.parent
    root = site_packages / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = Installation(
        server=root / "bin" / "tritonserver",
        python_backend=root / "backends" / "python",
        stub=root / "python_backend_stubs" / version / "triton_python_backend_stub",
        environment=_environment(site_packages),
    )
    for piece in (found.server, found.python_backend / "libtriton_python.so", found.stub):
        if not piece.is_file():
            raise ServerNotInstalled(f"expected {piece}, got nothing there; {INSTALL_HINT} on Python 3.11 or 3.12")
    missing = missing_libraries(found.stub, found.environment)
    if missing:
        raise ServerNotInstalled(
            f"expected {', '.join(missing)} for Triton's Python backend, got none on the library path; "
            f"on Debian: apt-get install libpython{version}"
        )
    return found


def _environment(site_packages: Path) -> dict[str, str]:
    """What the server and its stubs see: the wheel's libraries, and this interpreter.

    A stub finds its packages through the first `python3` on PATH; it ignores PYTHONPATH (tried).
    """
    libraries = [str(site_packages / "nvidia_pytriton.libs")]
    own_library = Path(str(sysconfig.get_config_var("LIBDIR"))) / str(sysconfig.get_config_var("INSTSONAME"))
    if own_library.suffix != ".a" and own_library.is_file():
        libraries.append(str(own_library.parent))
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join([*libraries, inherited] if inherited else libraries),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


def missing_libraries(binary: Path, environment: dict[str, str]) -> list[str]:
    """Shared libraries the loader wouldn't find."""
    listing = subprocess.run(["ldd", str(binary)], env=environment, capture_output=True, text=True, check=False).stdout
    return sorted({line.split("=>")[0].strip() for line in listing.splitlines() if "not found" in line})


def lay_out_backends(folder: Path, installation: Installation) -> None:
    """Fill an empty folder as Triton's `--backend-directory`."""
    python = folder / "python"
    python.mkdir()
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy2(installation.python_backend / name, python / name)
    shutil.copy2(installation.stub, python / installation.stub.name)
    ours = PROJECT / "serving" / "backends"
    for name in BACKENDS:
        (folder / name).mkdir()
        shutil.copy2(ours / name / "model.py", folder / name / "model.py")
