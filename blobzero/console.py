# SPDX-License-Identifier: Apache-2.0
"""The console of every verb."""

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """One that prints text as it is: a path or a server's words may hold `[/models/x]` or `:cat:`."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)
