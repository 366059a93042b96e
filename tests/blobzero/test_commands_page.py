# SPDX-License-Identifier: Apache-2.0
"""docs/commands.md says what the verbs say to `--help`, on any machine alike."""

from dataclasses import is_dataclass
from pathlib import Path
from typing import get_type_hints

import docstring_parser
import pytest

from blobzero.cli import VERBS
from docs.commands import PAGE, page

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_verbs_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "61")
    monkeypatch.setenv("FORCE_COLOR", "1")
    made = page()
    assert made == PAGE.read_text(), "run python docs/commands.py"
    assert all(f"\nusage: blobzero {name} " in made for name in VERBS)
    assert "\x1b" not in made


def broken_helps(config: type) -> list[str]:
    """Flags whose help is broken into lines: tyro keeps the breaks of a docstring, wherever they are."""
    nested = [kind for kind in get_type_hints(config).values() if is_dataclass(kind)]
    texts = [param for cls in config.__mro__[:-1] for param in docstring_parser.parse_from_object(cls).params]
    here = [f"{config.__name__}.{text.arg_name}" for text in texts if "\n" in (text.description or "")]
    return here + [name for kind in nested if isinstance(kind, type) for name in broken_helps(kind)]


@pytest.mark.parametrize("name", VERBS)
def test_the_help_of_a_flag_is_one_line(name: str) -> None:
    assert broken_helps(VERBS[name].function(name)[1]) == []


def test_the_page_names_no_machine() -> None:
    text = PAGE.read_text()
    for name in (str(ROOT), str(Path.home())):
        assert name not in text
