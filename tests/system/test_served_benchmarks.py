# SPDX-License-Identifier: Apache-2.0
"""Inference and self-play as the benchmarks measure them, against a real Triton: the keys, and figures that agree."""

import csv
import json
from pathlib import Path

import pytest

from export.publishing.publish import ensure_model
from perf.bench import inference, selfplay
from perf.bench.measure import Plan
from perf.bench.selfplay import FleetCase, Pace


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    ensure_model(folder, preset="small")
    return folder


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(quick=True, say=lambda text: None, out=tmp_path)


@pytest.mark.triton
def test_inference_covers_every_path_and_batch(plan: Plan, repository: Path) -> None:
    found = json.loads(json.dumps(inference.run(plan, repository=repository, window_s=0.02).to_json()))
    assert {(point["path"], point["batch"]) for point in found["points"]} == {
        (path, batch) for path in ("openvino", "onnxruntime", "triton") for batch in inference.BATCHES
    }
    for point in found["points"]:
        assert point["rows_per_s"] > 0
        assert point["client_us_per_row"] > 0
        if point["path"] != "triton":
            assert point["server_us_per_row"] == point["backend_us_per_row"] == 0
    assert 96 <= found["bytes_sent_per_row"] < 98
    assert 296 <= found["bytes_answered_per_row"] < 299
    assert found["repeats"] >= 5


@pytest.mark.triton
def test_selfplay_measures_a_fleet_beside_pure_load(plan: Plan, repository: Path) -> None:
    pace = Pace((FleetCase(1, 2, 4), FleetCase(2, 3, 30)), warm_up_s=0.3, window_s=0.3, pure_load_s=0.1, whole_rounds=4)
    result = selfplay.run(plan, repository=repository, pace=pace)
    found = json.loads(json.dumps(result.to_json()))
    assert [(point["workers"], point["determinizations"]) for point in found["points"]] == [(1, 2), (2, 3)]
    for point in found["points"]:
        assert point["rounds_per_min"] == pytest.approx(
            60 * point["evaluations_per_s"] / point["evaluations_per_round"], rel=0.01
        )
        assert point["mean_execution_rows"] >= 1
        assert point["client_us_per_evaluation"] > 0
    assert found["ratio_to_pure_load"] > 0
    assert len(list(csv.DictReader((plan.out / "selfplay.csv").read_text().splitlines()))) == 2
    assert (plan.out / "selfplay.png").read_bytes().startswith(b"\x89PNG")
