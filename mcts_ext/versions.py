# SPDX-License-Identifier: Apache-2.0
"""Names of version folders as Triton 2.51 parses them (each verified on its server).

```
0, 2, 9223372036854775807      versions
02                             ignored, with a warning in the server's log
2x, +2, " 2", -2               parsed as version 2 (or -2), whose folder is then not found: the model fails to load
9223372036854775808            the server crashes
configs, ٣                     ignored, with a warning
```
"""

import re
from typing import Final

LAST_VERSION: Final = 2**63 - 1


def version_number(name: str) -> int | None:
    """Return the version number of a folder, or None if its name is not a version."""
    number = int(name) if re.fullmatch("0|[1-9][0-9]{0,18}", name) else None
    return None if number is None or number > LAST_VERSION else number


def is_mistaken(name: str) -> bool:
    """Return whether a folder's name is not a version but makes Triton fail."""
    return not is_left_out(name) and version_number(name) is None and re.match(r"\s*[+-]?[0-9]", name) is not None


def is_left_out(name: str) -> bool:
    """Return whether Triton ignores a version-like folder because of its leading zeros."""
    return re.match("0.", name) is not None
