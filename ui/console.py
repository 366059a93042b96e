# SPDX-License-Identifier: Apache-2.0
"""Console of the commands."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console without markup: paths and messages may contain `[/models/x]` or `:cat:`."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


@contextlib.contextmanager
def decoration(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Guard optional output such as a figure: a failure prints one line and the command continues."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for example glyphs missing in matplotlib's font
            yield
    except ModuleNotFoundError as error:  # matplotlib is an optional dependency
        package = (error.name or "").partition(".")[0]
        say(f"no {what} without {package}: pip install 'blobzero[report]'")
    except Exception as error:
        say(f"no {what}: {type(error).__name__}: {' '.join(str(error).split())}")
