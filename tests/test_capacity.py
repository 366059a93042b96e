# SPDX-License-Identifier: Apache-2.0
"""The capacity page's arithmetic, on figures made up to be easy."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import capacity
from benchmarks.capacity import CapacityError, main, read_costs, render


def selfplay(**changes: Any) -> dict[str, Any]:
    point = {
        "determinizations": 3, "simulations": 30, "rounds_per_min": 6.0, "evaluations_per_s": 100.0,
        "evaluations_per_round": 1000.0, "client_us_per_evaluation": 2.0, "server_us_per_evaluation": 1.0,
        "backend_us_per_evaluation": 17.0,
    }  # fmt: skip
    slower = {**point, "rounds_per_min": 5.0, "client_us_per_evaluation": 99.0}
    other = {**point, "determinizations": 2, "rounds_per_min": 60.0, "client_us_per_evaluation": 88.0}
    machine = {"cpu": "Abacus", "cores": 2}
    found = {"points": [slower, point, other], "machine": machine, "commit": "abc", "measured_at": "2026-01-02T03:04"}
    return {**found, **changes}


INFERENCE = {
    "bytes_sent_per_row": 96.0,
    "bytes_answered_per_row": 250.0,
    "config": {"multiply_adds_per_row": 5_000_000},
}


def test_costs_come_from_the_best_rate_of_the_setting() -> None:
    costs = read_costs(INFERENCE, selfplay())
    assert costs.client_us == 2.0
    assert costs.client_cores(1_000_000) == pytest.approx(2.0)
    assert costs.server_cores(1_000_000) == pytest.approx(1.0)
    assert costs.rounds_per_min(1_000_000) == pytest.approx(60_000)
    assert costs.card_rows_per_s(1) == pytest.approx(500_000)  # 125 MB/s in answers of 250 bytes
    assert costs.peak_rows_per_s(1.0) == pytest.approx(100_000)


def test_the_page_shows_where_it_comes_from() -> None:
    page = render(INFERENCE, selfplay())
    assert "commit abc on 2026-01-02:\n2 cores of an Abacus, no GPU" in page
    assert "| 1,000,000 | 60,000 | 2.0 | 1.0 | 0.77 | 2.00 |" in page
    assert "| 10 Gbit/s | 5,000,000 | 10.0 |" in page
    assert "85% of the work is the network" in page


def test_other_files_are_refused() -> None:
    with pytest.raises(CapacityError, match="run both"):
        read_costs({}, selfplay())
    with pytest.raises(CapacityError, match="run both"):
        read_costs(INFERENCE, selfplay(points=[]))


def test_a_missing_folder_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(capacity, "PAGE", tmp_path / "capacity.md")
    assert main([str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "capacity.md").exists()
