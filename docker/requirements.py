# SPDX-License-Identifier: Apache-2.0
"""Print what sets of pyproject.toml's packages need, with hashes: `python docker/requirements.py SET ... >wanted.txt`.

A set is `client` (the dependencies), an extra, or `build`, what builds a wheel. `make` and the images install the
result with `pip install --require-hashes`. Run it in a folder that holds both files.
"""

import sys
import tomllib
from pathlib import Path

LOCK = Path("requirements.lock")
UNHASHED = ("torch",)
"""The same version is another file by the index it comes from: for a CPU, for one CUDA or another, or built on the
host. So it has no hash that holds everywhere: it is installed afterwards, held to its version by constraints.txt."""


def roots() -> dict[str, list[str]]:
    """What pyproject.toml asks for, by set."""
    everything = tomllib.loads(Path("pyproject.toml").read_text())
    project = everything["project"]
    return {
        "client": project["dependencies"],
        **project["optional-dependencies"],
        "build": everything["build-system"]["requires"],
    }


def locked(wanted: set[str]) -> list[str]:
    """The lines of requirements.lock for any of the sets `wanted`; options of pip's among them."""
    found, keep = [], True
    for line in LOCK.read_text().splitlines():
        if line.startswith("# for: "):
            keep = bool(wanted & set(line.removeprefix("# for: ").split()))
        elif keep and not line.startswith("#"):
            found.append(line)
    return found


if __name__ == "__main__":
    sets, known = set(sys.argv[1:]), roots()
    if not sets or sets - known.keys():
        sys.exit(f"expected sets of {', '.join(known)}, got {' '.join(sys.argv[1:]) or 'none'}")
    print("\n".join(locked(sets)))
