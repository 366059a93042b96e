# SPDX-License-Identifier: Apache-2.0
"""Console, tables and CSV of the commands."""

import contextlib
import csv
import io
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

PLAIN_WIDTH: Final = 140
"""Of wide tables where there is no terminal."""


def plain_console(*, stderr: bool = False, is_wide: bool = False) -> Console:
    """Return a console without markup: paths and messages may contain `[/models/x]` or `:cat:`.

    Args:
        stderr: print to standard error; standard output is for programs.
        is_wide: at least PLAIN_WIDTH columns, except on a terminal.
    """
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if is_wide and not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    return console


def new_table(title: str, *headings: str, left: Collection[str] = ()) -> Table:
    """Return a table of numbers; columns are right-aligned except those named in `left`."""
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    return table


def csv_of(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A line a row under the names of all; nothing where a row has none of a name."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


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
