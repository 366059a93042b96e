# SPDX-License-Identifier: Apache-2.0
"""How far a long command is: a bar and a line beside it on a terminal, elsewhere the lines worth keeping."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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
