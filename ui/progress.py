# SPDX-License-Identifier: Apache-2.0
"""How far a long command is: a bar and a line beside it on a terminal, elsewhere the lines worth keeping."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

BAR_INTERVAL_S: Final = 0.25
LINE_INTERVAL_S: Final = 10.0
"""Interval of lines where there is no terminal."""


class Show(Protocol):
    """Shows what happens and how much is done; what is worth a line stays, on a terminal too."""

    def __call__(self, text: str, done: float | None = None, *, is_line: bool = False) -> None: ...


@contextmanager
def progress(console: Console, what: str, *, total: float | None) -> Iterator[Show]:
    """A bar of so many `what`, of nobody knows how many without a total."""
    bar = Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    task = bar.add_task("", total=total)

    def show(text: str, done: float | None = None, *, is_line: bool = False) -> None:
        bar.update(task, description=text, completed=done)
        if is_line:
            console.print(text, soft_wrap=True)

    with bar:
        yield show


@contextmanager
def ticker(console: Console, what: str, *, total: int) -> Iterator[Callable[[int, Callable[[], str]], None]]:
    """Yield a function for a loop that turns faster than anybody reads: it takes how much is done, and a text.

    The text is a function, called only when it is shown: beside the bar, or in a line where there is no terminal.
    """
    interval_s = BAR_INTERVAL_S if console.is_terminal else LINE_INTERVAL_S
    next_s = time.monotonic() + interval_s
    with progress(console, what, total=total) as show:

        def tick(done: int, text: Callable[[], str]) -> None:
            nonlocal next_s
            is_end = console.is_terminal and done >= total  # a bar that is full is always drawn
            if (now := time.monotonic()) < next_s and not is_end:
                return
            next_s = now + interval_s
            if console.is_terminal:
                show(text(), done)
            else:
                console.print(f"{done:,} of {total:,} {what}  {text()}")

        yield tick
