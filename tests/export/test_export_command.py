# SPDX-License-Identifier: Apache-2.0
"""`blobzero export`, and what it measures with: recorded positions and time."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import clients.selfplay.records
from blobzero.cli import main
from clients.selfplay.records import shard_paths, write_shard
from export.errors import InvalidPositions
from export.exporter import REPORT_FILE, EngineResult, _fastest, export_variants
from export.graph import read_metadata
from export.parity import ParityReport
from export.positions import export_positions, recorded_rows, sample_rows
from export.precisions import VARIANTS, Variant
from export.timing import BATCH, Speed, time_engines
from export.variants import evaluate
from mcts_ext.records import Records
from tests.export.test_quantize import unfit_for_int8
from tests.support.shards import read_shards
from training.checkpoint import save_checkpoint
from training.network import BlobNet, create_network


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by the real recorder."""
    folder = tmp_path_factory.mktemp("data") / "run"
    flags = ["--evaluator", "hash", "--rounds", "40", "--simulations", "2", "--games", "40", "--workers", "1"]
    assert main(["selfplay", *flags, "--seed", "5", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "seven.safetensors"
    save_checkpoint(path, create_network("small", seed=7), step=7, seed=7)
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times for a moment only."""
    monkeypatch.setattr(
        "export.exporter.time_engines", lambda *given, **named: time_engines(*given, **named, repeats=2, seconds=0.01)
    )


def beyond_float16(network: BlobNet) -> BlobNet:
    """The same but for a unit that nothing reads; its weights are more than float16 holds (65,504)."""
    with torch.no_grad():
        network.blocks[0].contract.weight[:, 1] = 0  # type: ignore[union-attr, index, operator]
        network.blocks[0].expand.weight[1] = 1e6  # type: ignore[union-attr, index, operator]
    return network


def as_set(rows: NDArray[np.uint8]) -> set[bytes]:
    return {row.tobytes() for row in rows}


def test_rows_are_drawn_from_a_run(run: Path) -> None:
    recorded = as_set(read_shards(shard_paths(run / "shards")).observation)
    rows, origin = recorded_rows(run, 200, seed=1)
    assert as_set(rows) <= recorded
    assert len(as_set(rows)) == 200
    assert origin == f"200 recorded in {run}"
    assert np.array_equal(rows, recorded_rows(run.parent, 200, seed=1)[0])
    assert not np.array_equal(rows, recorded_rows(run, 200, seed=2)[0])


def test_a_short_run_is_topped_up_with_random_rounds(run: Path) -> None:
    recorded = as_set(read_shards(shard_paths(run / "shards")).observation)
    rows, origin = recorded_rows(run, 2000, seed=1)
    assert as_set(rows[: len(recorded)]) == recorded
    assert len(as_set(rows)) == 2000
    assert (
        origin == f"{len(recorded)} recorded in {run}, which has no more, and {2000 - len(recorded):,} of random rounds"
    )


def test_the_newest_run_is_the_default(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows, origin = recorded_rows(None, 50, seed=1)
    assert (len(as_set(rows)), origin) == (50, "50 of random rounds, since data has no records")
    whole = read_shards(shard_paths(run / "shards"))
    for age, name, first in ((100, "old", 0), (0, "new", 60)):
        part = Records(**{field: column[first : first + 60] for field, column in vars(whole).items()})
        path = tmp_path / "data" / name / "shards" / "a.parquet"
        path.parent.mkdir(parents=True)
        write_shard(path, part, provenance={})
        then = time.time() - age
        os.utime(path, (then, then))
    rows, origin = recorded_rows(None, 50, seed=1)
    assert as_set(rows) <= as_set(whole.observation[60:120])
    assert origin == "50 recorded in data/new"


def test_parity_and_calibration_share_no_position(run: Path) -> None:
    parity, calibration, _ = export_positions(run)
    assert (len(parity), len(calibration)) == (4096, 1024)
    assert not as_set(parity) & as_set(calibration)
    assert as_set(read_shards(shard_paths(run / "shards")).observation) <= as_set(parity)


def test_a_folder_without_records_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    with pytest.raises(InvalidPositions, match="expected shards of records under"):
        recorded_rows(tmp_path, 10, seed=1)
    monkeypatch.setattr(clients.selfplay.records, "OBSERVATION_VERSION", 3)
    with pytest.raises(InvalidPositions, match=r"unusable ones .* got observation version 2, not 3"):
        recorded_rows(run, 10, seed=1)


def test_engines_are_timed_in_turns_and_against_their_base() -> None:
    turns: list[str] = []

    def sleeper(name: str, seconds: float) -> Callable[[NDArray[np.uint8]], None]:
        def run(rows: NDArray[np.uint8]) -> None:
            assert len(rows) == BATCH
            if not turns or turns[-1] != name:
                turns.append(name)
            time.sleep(seconds)

        return run

    engines = {"base": sleeper("base", 0.004), "fast": sleeper("fast", 0.001), "alone": sleeper("alone", 0.001)}
    base = {"base": "base", "fast": "base", "alone": "missing"}
    found = time_engines(engines, sample_rows(BATCH, seed=1), base=base.__getitem__, repeats=5, seconds=0.02)
    assert turns == ["base", "fast", "alone"] * 5
    assert found["base"].ratio == 1
    assert found["fast"].ratio is not None
    assert 1.5 < found["fast"].ratio < 6
    assert found["alone"].ratio is None
    assert all(0 < speed.low <= speed.median <= speed.high for speed in found.values())


def test_of_two_that_are_as_fast_the_nearer_one_counts() -> None:
    parity = ParityReport(1, 0.1, 1e-3, 0.1, 0.1, 1.0, 0.1, 0.1)
    near, far = replace(parity, mean_policy_kl=1e-6), parity
    exact = EngineResult(Variant("onnx", "float32"), "openvino", near, Speed(97, 90, 100, 1.0))
    equal = EngineResult(Variant("onnx", "int8"), "openvino", far, Speed(100, 90, 110, 1.03))
    faster = replace(equal, speed=Speed(150, 90, 200, 1.5))
    assert _fastest([exact, equal]) is exact
    assert _fastest([exact, faster]) is faster
    assert _fastest([replace(exact, speed=None)]) is None


@pytest.mark.usefixtures("quick")
def test_every_variant_is_built_compared_and_timed(
    checkpoint: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(checkpoint), "--records", str(run), "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    folder = checkpoint.parent / "seven-export"
    assert json.loads((folder / REPORT_FILE).read_text()) == report
    assert {entry.name for entry in folder.iterdir()} == {
        REPORT_FILE,
        *(str(one).replace(" ", "-") for one in VARIANTS),
    }
    assert (report["checkpoint"]["step"], report["refused"]) == (7, {})
    assert str(run) in report["positions"]
    served = {(one["variant"]["format"], one["variant"]["precision"], one["engine"]): one for one in report["served"]}
    assert set(served) == {(one.format, one.precision, engine) for one in VARIANTS for engine in one.engines}
    for (_, precision, engine), one in served.items():
        assert one["parity"]["n_rows"] == 4096
        assert one["parity"]["mean_policy_kl"] <= one["parity"]["p99_policy_kl"] <= one["parity"]["max_policy_kl"]
        assert one["speed"]["low"] > 0
        assert one["speed"]["ratio"] > 0
        assert precision != "float32" or one["speed"]["ratio"] == 1, engine
    assert sorted(one["engine"] for one in served.values() if one["is_fastest"]) == [
        "onnxruntime",
        "openvino",
        "pytorch",
    ]
    for variant in VARIANTS:
        path = Path(report["files"][str(variant)])
        metadata = read_metadata(path)
        assert metadata["weights_sha256"] == report["checkpoint"]["weights_sha256"]
        figures = json.loads(metadata["parity"])
        assert figures == {
            engine: served[variant.format, variant.precision, engine]["parity"] for engine in variant.engines
        }
        assert len(evaluate(path, sample_rows(5, seed=1), engine=variant.engines[0]).value) == 5
    assert err.count("fastest") >= 3
    assert f"next     blobzero publish {checkpoint} " in err


@pytest.mark.usefixtures("quick")
def test_what_is_beyond_tolerance_is_refused_and_not_kept(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, old = tmp_path / "wild.safetensors", tmp_path / "out" / "onnx-float16" / "model.onnx"
    save_checkpoint(path, beyond_float16(unfit_for_int8()), step=0)
    old.parent.mkdir(parents=True)
    old.write_bytes(b"of another network")
    flags = [str(path), "--records", str(run), "--out", str(tmp_path / "out")]
    assert main(["export", *flags, "--formats", "onnx", "--precisions", "float32", "float16", "int8"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "refused  onnx float16: expected finite weights" in err
    assert "refused  onnx int8: expected the onnx int8 file in openvino within" in err
    assert not old.exists()
    report = json.loads((tmp_path / "out" / REPORT_FILE).read_text())
    assert list(report["files"]) == ["onnx float32"]
    assert list(report["refused"]) == ["onnx float16", "onnx int8"]
    assert not (tmp_path / "out" / "onnx-int8").exists()
    assert [one["speed"] is None for one in report["served"]] == [False, False, True, True]


@pytest.mark.usefixtures("quick")
def test_a_refusal_that_nobody_asked_for_is_no_failure(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blobzero.verbs.export import ExportConfig, export

    save_checkpoint(tmp_path / "wild.safetensors", beyond_float16(create_network("small", seed=7)), step=0)
    report = export_variants(
        tmp_path / "wild.safetensors",
        tmp_path / "out",
        formats=("torchscript",),
        precisions=("float32", "float16"),
        records=run,
    )
    assert list(report.refused) == [Variant("torchscript", "float16")]
    monkeypatch.setattr("export.exporter.export_variants", lambda *given, **named: report)
    assert export(ExportConfig(tmp_path / "wild.safetensors")) == 0
    assert export(ExportConfig(tmp_path / "wild.safetensors", formats=("torchscript",))) == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["missing.safetensors"], "missing.safetensors"),
        (["folder"], "folder"),
        (["garbage.safetensors"], "expected a readable checkpoint"),
        (["good.safetensors", "--records", "folder"], "expected shards of records under folder"),
        (
            ["good.safetensors", "--formats", "torchscript", "--precisions", "int8"],
            "available in torchscript, got int8",
        ),
        (["good.safetensors", "--out", "garbage.safetensors"], "expected a folder to write at garbage.safetensors"),
    ],
)
def test_a_mistake_costs_one_line(
    flags: list[str],
    says: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage.safetensors").write_bytes(b"garbage")
    (tmp_path / "good.safetensors").write_bytes(checkpoint.read_bytes())
    assert main(["export", *flags]) == 1
    err = capsys.readouterr().err.strip()
    assert says in err
    assert err.startswith("blobzero: ")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.rglob("*.onnx"))
