# SPDX-License-Identifier: Apache-2.0
"""Console, tables and CSV of the commands."""

import contextlib
import csv
import io
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

PLAIN_WIDTH: Final = 140
"""Of wide tables where there is no terminal."""


def plain_console(*, stderr: bool = False, is_wide: bool = False, is_colored: bool = True) -> Console:
    """Return a console without markup, since paths may contain `[/models/x]` or `:cat:`, that wraps no lines itself.

    Args:
        stderr: print to standard error; standard output is for programs.
        is_wide: at least PLAIN_WIDTH columns, except on a terminal.
        is_colored: use colors on a terminal.
    """
    force = None if is_colored else False
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True, force_terminal=force)
    if is_wide and not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    return console


def new_table(title: str | None, *headings: str, left: Collection[str] = (), **style: Any) -> Table:
    """Return a table of numbers, aligned right and never broken; only the columns of words, in `left`, wrap."""
    table = Table(title=title, **style)
    for heading in headings:
        if heading in left:
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    return table


def facts(title: str, rows: Iterable[tuple[str, str]], **style: Any) -> Table:
    """Return a table of names and their values; `style` is passed to rich's Table."""
    table = Table(title=title, show_header=False, **style)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
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
