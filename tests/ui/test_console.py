# SPDX-License-Identifier: Apache-2.0
"""What every verb shows alike, where there is no terminal."""

import csv
import io

from rich.console import Console

from ui.console import PLAIN_WIDTH, csv_of, new_table, plain_console
from ui.progress import progress


def test_a_wide_console_has_room_without_a_terminal() -> None:
    assert plain_console(is_wide=True).width >= PLAIN_WIDTH


def test_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    table = new_table("title", "name", "rate", left=("name",))
    assert [column.justify for column in table.columns] == ["left", "right"]


def test_rows_with_other_names_share_one_csv() -> None:
    text = csv_of([{"a": 1, "b": 2}, {"a": 3, "c": "x,y"}]).decode()
    assert list(csv.DictReader(io.StringIO(text))) == [{"a": "1", "b": "2", "c": ""}, {"a": "3", "b": "", "c": "x,y"}]


def test_progress_keeps_lines_and_nothing_else_where_there_is_no_terminal() -> None:
    file = io.StringIO()
    with progress(Console(file=file, markup=False), "points", total=2) as show:
        show("under way")
        show("one [done]", 1, is_line=True)
    assert file.getvalue() == "one [done]\n"
