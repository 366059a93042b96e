# SPDX-License-Identifier: Apache-2.0
"""HTTP requests that bypass any proxy set in the environment (http_proxy)."""

import urllib.request
from typing import Final

_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, *, timeout_s: float) -> str:
    """Fetch a page and return its text.

    Raises:
        OSError, ValueError, http.client.HTTPException: as `urllib.request.urlopen`; UnicodeDecodeError is a ValueError.
    """
    with _OPENER.open(url, timeout=timeout_s) as response:
        return str(response.read().decode())
