# SPDX-License-Identifier: Apache-2.0
"""What every verb shows alike, where there is no terminal."""

import csv
import io

import pytest
from rich.console import Console

from ui.console import PLAIN_WIDTH, csv_of, facts, new_table, plain_console
from ui.progress import progress, ticker


def test_a_wide_console_has_room_without_a_terminal() -> None:
    assert plain_console(is_wide=True).width >= PLAIN_WIDTH


def test_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    table = new_table("title", "name", "rate", left=("name",))
    assert [column.justify for column in table.columns] == ["left", "right"]


def test_a_long_line_is_not_broken_and_a_path_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    plain_console(stderr=True).print("[/models/x] " + "word " * 40)
    assert capsys.readouterr().err == "[/models/x] " + "word " * 40 + "\n"


def test_facts_are_names_and_values() -> None:
    names, values = facts("title", [("rounds", "5"), ("seconds", "1.0")]).columns
    assert (list(names.cells), list(values.cells)) == (["rounds", "seconds"], ["5", "1.0"])
    assert values.justify == "right"


def test_rows_with_other_names_share_one_csv() -> None:
    text = csv_of([{"a": 1, "b": 2}, {"a": 3, "c": "x,y"}]).decode()
    assert list(csv.DictReader(io.StringIO(text))) == [{"a": "1", "b": "2", "c": ""}, {"a": "3", "b": "", "c": "x,y"}]


def test_progress_keeps_lines_and_nothing_else_where_there_is_no_terminal() -> None:
    file = io.StringIO()
    with progress(Console(file=file, markup=False), "points", total=2) as show:
        show("under way")
        show("one [done]", 1, is_line=True)
    assert file.getvalue() == "one [done]\n"


@pytest.mark.parametrize(("interval_s", "said"), [(0.0, "1 of 2,000 steps  text\n2 of 2,000 steps  text\n"), (60, "")])
def test_a_ticker_says_a_line_now_and_then_where_there_is_no_terminal(
    interval_s: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.progress.LINE_INTERVAL_S", interval_s)
    file, asked = io.StringIO(), list[int]()
    with ticker(Console(file=file, markup=False), "steps", total=2000) as tick:
        for done in (1, 2):
            tick(done, lambda: asked.append(0) or "text")  # type: ignore[func-returns-value]
    assert (file.getvalue(), len(asked)) == (said, said.count("text"))
