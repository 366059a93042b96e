# SPDX-License-Identifier: Apache-2.0
"""What a soak test makes of rates of play: a recovery is one after the cure, and play that sinks is found."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perf.soak.faults import Inflicted
from perf.soak.soak import POLL_S, BrokenOff, Moment, Soak, SoakConfig

NO_STACK: Any = SimpleNamespace()


class Played(Soak):
    """A soak whose workers play at a given rate, on a clock of its own."""

    clock = 0.0
    total = 0.0
    rate: Callable[[float], float]

    @property
    def now(self) -> float:
        return self.clock

    def _poll(self, stack: Any, *, is_calm: bool = False) -> None:
        self.clock += POLL_S
        self.total += POLL_S * self.rate(self.clock)
        self._add(Moment(self.clock, 0, int(self.total)), is_calm=is_calm)


def played(out: Path, rate: Callable[[float], float], *, faults: int = 0) -> Played:
    config = SoakConfig(out=out, minutes=4.0, faults=faults)
    soak = Played(config, None, config.kinds, lambda *_, **__: None, lambda: False)
    soak.rate = rate
    return soak


def test_steady_play_is_found_steady(tmp_path: Path) -> None:
    soak = played(tmp_path, lambda at: 1000.0)
    soak._play(NO_STACK)
    assert soak.now == pytest.approx(240.0)


def test_play_that_sinks_without_a_fault_is_found(tmp_path: Path) -> None:
    soak = played(tmp_path, lambda at: 1000.0 if at < 120 else 400.0)
    with pytest.raises(BrokenOff, match=r"its first 1,000 evaluations/s at the end, got 400"):
        soak._play(NO_STACK)


def test_play_that_never_begins_is_found(tmp_path: Path) -> None:
    with pytest.raises(BrokenOff, match=r"at first, got 0"):
        played(tmp_path, lambda at: 0.0)._play(NO_STACK)


def test_a_recovery_is_one_after_the_cure(tmp_path: Path) -> None:
    """One of two backends is dead, the other plays on; the watch sees it after 6 s, and the restart takes 5."""
    soak = played(tmp_path, lambda at: 800.0 if at < 6 else 0.0 if at < 11 else 1000.0)
    found = soak._recover(NO_STACK, Inflicted("a death", is_cured=lambda: soak.now >= 6), 0.0, 1000.0)
    assert found is not None
    assert 9 <= found <= 11  # the first four seconds at 70%


def test_a_cure_that_never_comes_is_no_recovery(tmp_path: Path) -> None:
    soak = played(tmp_path, lambda at: 1000.0)
    assert soak._recover(NO_STACK, Inflicted("a death", is_cured=lambda: False), 0.0, 1000.0) is None
