# SPDX-License-Identifier: Apache-2.0
"""Where the pieces of Triton are on this machine: the server and its Python backend, out of nvidia-pytriton."""

import importlib.util
import resource
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ServerNotInstalled, ServingError

BACKENDS = {"openvino": "model.onnx", "onnxruntime": "model.onnx", "pytorch": "model.pt"}
"""By name, the file of a version that each reads."""

PROJECT = Path(__file__).resolve().parent.parent  # where `import serving` works
LEAST_OPEN_FILES = 128  # with 64 the server starts and then takes no connection; each client is one more
INSTALL_HINT = "install it with: pip install 'blobzero[serve]'"


@dataclass(frozen=True)
class Installation:
    """The pieces, checked to be there."""

    server: Path  # the tritonserver binary
    python_backend: Path  # folder of libtriton_python.so
    stub: Path  # the backend process for the running Python version
    libraries: tuple[Path, ...]  # folders of the shared libraries that the server and its stubs need


def find_installation() -> Installation:
    """Find the wheel's pieces.

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
        libraries=_libraries(site_packages),
    )
    for piece in (found.server, found.python_backend / "libtriton_python.so", found.stub):
        if not piece.is_file():
            raise ServerNotInstalled(f"expected {piece}, got nothing there; {INSTALL_HINT} on Python 3.11 or 3.12")
    return found


def _libraries(site_packages: Path) -> tuple[Path, ...]:
    """The wheel's own, and where this interpreter has its library, if it is a shared one."""
    libraries = [site_packages / "nvidia_pytriton.libs"]
    own_library = Path(str(sysconfig.get_config_var("LIBDIR"))) / str(sysconfig.get_config_var("INSTSONAME"))
    if own_library.suffix != ".a" and own_library.is_file():
        libraries.append(own_library.parent)
    return tuple(libraries)


def check_open_files() -> None:
    """Raise ServingError if the hard limit of open files is too low; the guardian raises the soft one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < LEAST_OPEN_FILES:
        raise ServingError(
            f"expected a limit of {LEAST_OPEN_FILES} or more open files for Triton, got {hard}; raise it (ulimit -Hn)"
        )


def missing_libraries(binary: Path, environment: dict[str, str]) -> list[str]:
    """Shared libraries the loader wouldn't find."""
    listing = subprocess.run(["ldd", str(binary)], env=environment, capture_output=True, text=True, check=False).stdout
    return sorted({line.split("=>")[0].strip() for line in listing.splitlines() if "not found" in line})
