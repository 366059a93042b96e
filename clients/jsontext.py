# SPDX-License-Identifier: Apache-2.0
"""JSON from files that others may have written."""

import json
from typing import Any


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object in a JSON text.

    Raises:
        ValueError: no JSON, not an object, or nested too deeply to be read.
    """
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__}, not a JSON object")
    return found
