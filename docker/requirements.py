# SPDX-License-Identifier: Apache-2.0
"""Print what pyproject.toml asks for, a line a package: `python docker/requirements.py [EXTRA ...]`.

An image's layer of packages then depends on pyproject.toml and constraints.txt alone, and a change of the sources
does not install them again.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = list(project["dependencies"])
for extra in sys.argv[1:]:
    wanted += project["optional-dependencies"][extra]
for requirement in wanted:  # the list grows while it is read: an extra may ask for others of ours
    if requirement.startswith("blobzero["):
        for extra in requirement.removeprefix("blobzero[").removesuffix("]").split(","):
            wanted += project["optional-dependencies"][extra]
    else:
        print(requirement)
