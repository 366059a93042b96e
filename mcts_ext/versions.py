# SPDX-License-Identifier: Apache-2.0
"""The names of version folders, as Triton 2.51 reads them (each tried on its server).

```
0, 2, 9223372036854775807      versions
02                             left out, with a warning in the server's log
2x, +2, " 2", -2               taken for version 2 (or -2), whose folder is then not found: the model is not loaded
9223372036854775808            the server dies
configs, ٣                     left out, with a warning
```
"""

import re
from typing import Final

LAST_VERSION: Final = 2**63 - 1


def version_number(name: str) -> int | None:
    """The version whose folder has this name; None for any other name."""
    found = int(name) if re.fullmatch("0|[1-9][0-9]{0,18}", name) else None
    return None if found is None or found > LAST_VERSION else found


def is_mistaken(name: str) -> bool:
    """Whether a folder's name is no version's, but so like one that Triton stumbles over it."""
    return not is_left_out(name) and version_number(name) is None and re.match(r"\s*[+-]?[0-9]", name) is not None


def is_left_out(name: str) -> bool:
    """Whether Triton leaves out a folder that people may take for a version, for its leading zeros."""
    return re.match("0.", name) is not None
