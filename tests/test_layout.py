# SPDX-License-Identifier: Apache-2.0
"""The shape of the repository: who may import whom, how long a file may be, what stands at the top."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "mcts_ext": set(),
    "clients": {"mcts_ext"},
    "training": {"mcts_ext", "clients"},
    "export": {"mcts_ext", "clients", "training"},
    "serving": {"mcts_ext"},
    "blobzero": {"mcts_ext", "clients", "training", "export", "serving"},
}
FORBIDDEN = {
    "mcts_ext": {"torch", "grpc", "tritonclient", "pyarrow"},
    "clients": {"torch", "onnx"},
    "training": {"grpc", "tritonclient"},
    "serving": {"torch"},
}
SOURCES = [
    path
    for folder in [*MAY_IMPORT, "tests", "benchmarks"]
    for suffix in ("py", "pyx", "pxd")
    for path in sorted((ROOT / folder).rglob(f"*.{suffix}"))
]


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_down_the_list(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    others = set(MAY_IMPORT) - MAY_IMPORT[package] - {package}
    for path in files:
        found = imported(path)
        assert not found & others, path
        assert not found & FORBIDDEN.get(package, set()), path


def test_the_client_runs_without_torch() -> None:
    names = [f"clients.{path.stem}" for path in sorted((ROOT / "clients").glob("*.py")) if path.stem != "__init__"]
    names += ["blobzero.cli"]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_licensed(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) < 400
    assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"


@pytest.mark.parametrize(
    "name",
    [
        "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "Makefile", ".ci/run", "pyproject.toml", "setup.py",
        "model_repo/blobnet/config.pbtxt", "docs/design.md", "docs/rules.md", "docs/log.md",
    ],
)  # fmt: skip
def test_what_a_newcomer_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).is_file()
