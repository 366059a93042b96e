# SPDX-License-Identifier: Apache-2.0
"""Location of Triton on this machine: the server and its Python backend from nvidia-pytriton."""

import importlib.util
import resource
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ServerNotInstalled, ServingError

BACKENDS = {"openvino": "model.onnx", "onnxruntime": "model.onnx", "pytorch": "model.pt"}
"""File of a version that each backend reads."""

PROJECT = Path(__file__).resolve().parent.parent  # where `import serving` works
LEAST_OPEN_FILES = 128  # with 64 the server starts but accepts no connection; each client needs one more
INSTALL_HINT = "install it with: pip install 'blobzero[serve]'"


@dataclass(frozen=True)
class Installation:
    """Files of Triton, all of which exist."""

    server: Path  # the tritonserver binary
    python_backend: Path  # folder of libtriton_python.so
    stub: Path  # the backend process for the running Python version
    libraries: tuple[Path, ...]  # folders of the shared libraries that the server and its stubs need


def find_installation() -> Installation:
    """Find the files of the wheel.

    Raises:
        ServerNotInstalled: if something is missing; the message says what to install.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise ServerNotInstalled(f"expected the package nvidia-pytriton (it contains Triton), got none; {INSTALL_HINT}")
    site_packages = Path(spec.origin).parent.parent
    root = site_packages / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    installation = Installation(
        server=root / "bin" / "tritonserver",
        python_backend=root / "backends" / "python",
        stub=root / "python_backend_stubs" / version / "triton_python_backend_stub",
        libraries=_libraries(site_packages),
    )
    for file in (installation.server, installation.python_backend / "libtriton_python.so", installation.stub):
        if not file.is_file():
            raise ServerNotInstalled(f"expected {file}, got no file; {INSTALL_HINT} on Python 3.11 or 3.12")
    return installation


def _libraries(site_packages: Path) -> tuple[Path, ...]:
    """Return the library folders of the wheel and, if it is shared, of this interpreter's library."""
    libraries = [site_packages / "nvidia_pytriton.libs"]
    own_library = Path(str(sysconfig.get_config_var("LIBDIR"))) / str(sysconfig.get_config_var("INSTSONAME"))
    if own_library.suffix != ".a" and own_library.is_file():
        libraries.append(own_library.parent)
    return tuple(libraries)


def check_open_files() -> None:
    """Raise ServingError if the hard limit of open files is too low; the guardian raises the soft limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < LEAST_OPEN_FILES:
        raise ServingError(
            f"expected a limit of {LEAST_OPEN_FILES} or more open files for Triton, got {hard}; raise it (ulimit -Hn)"
        )


def missing_libraries(binary: Path, environment: dict[str, str]) -> list[str]:
    """Return the shared libraries that the loader would not find."""
    listing = subprocess.run(["ldd", str(binary)], env=environment, capture_output=True, text=True, check=False).stdout
    return sorted({line.split("=>")[0].strip() for line in listing.splitlines() if "not found" in line})
