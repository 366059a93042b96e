# SPDX-License-Identifier: Apache-2.0
"""The console of every verb, and what may fail there without deciding anything."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """One that prints text as it is: a path or a server's words may hold `[/models/x]` or `:cat:`."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


@contextlib.contextmanager
def decoration(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """For a picture or a table after a result that stands already: a failure is one line, and the verb goes on."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a letter of a folder's name that matplotlib's font has not, for one
            yield
    except ModuleNotFoundError as error:  # matplotlib is left out where many workers run
        package = (error.name or "").partition(".")[0]
        say(f"no {what} without {package}: pip install 'blobzero[report]'")
    except Exception as error:
        say(f"no {what}: {type(error).__name__}: {' '.join(str(error).split())}")
