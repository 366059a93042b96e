# SPDX-License-Identifier: Apache-2.0
"""What asks a long command to end: Ctrl-C, SIGTERM, a terminal that is closed, but not one that nohup has cut off."""

import signal

import pytest

from blobzero.stopping import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_asks_and_a_second_one_ends(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_signals() as was_stopped:
        assert not was_stopped()
        signal.raise_signal(number)
        assert was_stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_command_that_nohup_started_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as was_stopped:
            signal.raise_signal(signal.SIGHUP)
            assert not was_stopped()
    finally:
        signal.signal(signal.SIGHUP, before)
