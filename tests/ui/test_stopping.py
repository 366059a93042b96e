# SPDX-License-Identifier: Apache-2.0
"""What asks a long command to end: Ctrl-C, SIGTERM, a terminal that is closed, but not one that nohup has cut off."""

import subprocess
import sys

import pytest

TWICE = """
import signal, sys
from ui.stopping import stop_signals
number = signal.Signals[sys.argv[1]]
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[2] == "nohup" else signal.SIG_DFL)
with stop_signals() as was_stopped:
    print(was_stopped())
    signal.raise_signal(number)
    print(was_stopped())
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        print("ended")
"""


INTERRUPTED = """
import signal, sys
from ui.stopping import interrupting_signals
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[2] == "nohup" else signal.SIG_DFL)
try:
    with interrupting_signals():
        signal.raise_signal(signal.Signals[sys.argv[1]])
        print("lives")
except KeyboardInterrupt:
    print("interrupted")
"""


def said(number: str, how: str, script: str = TWICE) -> list[str]:
    """In a process of its own, as signals are of a whole process."""
    command = [sys.executable, "-c", script, number, how]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_one_asks_and_a_second_one_ends(number: str) -> None:
    assert said(number, "terminal") == ["False", "True", "ended"]


def test_a_command_that_nohup_started_outlives_its_terminal() -> None:
    assert said("SIGHUP", "nohup") == ["False", "False"]


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_what_tidies_up_is_interrupted_by_all_of_them(number: str) -> None:
    assert said(number, "terminal", INTERRUPTED) == ["interrupted"]


def test_what_tidies_up_outlives_its_terminal_under_nohup() -> None:
    assert said("SIGHUP", "nohup", INTERRUPTED) == ["lives"]
