# SPDX-License-Identifier: Apache-2.0
"""docs/commands.md says what the verbs say to `--help`, on any machine alike."""

from pathlib import Path

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


def test_the_page_names_no_machine() -> None:
    text = PAGE.read_text()
    for name in (str(ROOT), str(Path.home())):
        assert name not in text
