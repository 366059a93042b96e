# SPDX-License-Identifier: Apache-2.0
"""Fetch a page over HTTP from whom it is addressed to: a proxy in the environment (http_proxy) is not asked."""

import urllib.request
from typing import Final

_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, *, timeout_s: float) -> str:
    """The page's text.

    Raises:
        OSError, ValueError, http.client.HTTPException: as `urllib.request.urlopen`; UnicodeDecodeError is a ValueError.
    """
    with _OPENER.open(url, timeout=timeout_s) as answer:
        return str(answer.read().decode())
