# SPDX-License-Identifier: Apache-2.0
"""`blobzero loadtest` as a user meets it: its files, its gate both ways, and one line for every mistake."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from blobzero.cli import main
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from tests.support.python_models import write_models
from tests.support.tiny_model import write_repository

QUICK = ["--rows", "8", "--ramp", "0.1", "--warmup", "0.1"]


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A server that does 100 requests/s and no more."""
    folder = tmp_path_factory.mktemp("sleeper")
    with EmbeddedTriton(ServerConfig(write_models(folder / "models", seconds=0.01), log_file=folder / "log")) as server:
        yield server


@pytest.mark.triton
@pytest.mark.parametrize("has_matplotlib", [True, False])
def test_it_starts_a_server_of_its_own_and_leaves_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, has_matplotlib: bool
) -> None:
    if not has_matplotlib:
        monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    repository, out = write_repository(tmp_path / "models"), tmp_path / "out"
    flags = ["--repository", str(repository), "--concurrency", "1:4:x2", "--transport", "grpc", "shm", "--json"]
    assert main(["loadtest", *flags, *QUICK, "--duration", "0.4", "--processes", "2", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found == json.loads((out / "loadtest.json").read_text())
    assert [(one["transport"], one["concurrency"]) for one in found["points"]] == [
        (name, n) for n in (1, 2, 4) for name in ("grpc", "shm")
    ]
    assert set(found["knee"]) == {"grpc", "shm"}
    assert found["model"] == {"name": "blobnet", "max_batch_size": 1024}
    for one in found["points"]:
        assert one["server"]["batch_sizes"]
        assert one["rows_per_s"] == pytest.approx(8 * one["requests_per_s"])
    lines = list(csv.DictReader((out / "loadtest.csv").read_text().splitlines()))
    assert [float(line["p99_ms"]) for line in lines] == [one["p99_ms"] for one in found["points"]]
    assert (out / "latency.png").exists() == has_matplotlib
    assert ("pictures without matplotlib" in captured.err) != has_matplotlib
    assert "knee" in captured.err


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timing
def test_the_gate_opens_and_closes(sleeper: EmbeddedTriton, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["loadtest", "--url", sleeper.url, *QUICK, "--slo", "p90=60ms", "--duration", "1.5", "--precision", "0.3"]
    assert main([*flags, "--require", "40", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 40 <= found["slo"]["requests_per_s"] <= 110
    assert main([*flags, "--require", "160"]) == 1
    captured = capsys.readouterr()
    assert "expected 160 requests/s with p90=60ms, got" in captured.err.strip().splitlines()[-1]
    assert "holds up to" in captured.out


@pytest.mark.triton
def test_a_sweep_is_a_gate_too(sleeper: EmbeddedTriton, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["loadtest", "--url", sleeper.url, *QUICK, "--concurrency", "2", "--duration", "0.6"]
    assert main([*flags, "--require", "50"]) == 0
    capsys.readouterr()
    assert main([*flags, "--require", "500"]) == 1
    assert "expected 500 requests/s, got" in capsys.readouterr().err


@pytest.mark.triton
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--model", "nosuch"], "expected model nosuch"),
        (["--rows", "4096"], "expected at most 1024 rows"),
        (["--data", "/nowhere"], "expected shards of records under /nowhere"),
        (
            ["--out", "/proc/nowhere", "--concurrency", "1", "--duration", "0.3"],
            "expected a folder to write at /proc/nowhere",
        ),
    ],
)
def test_a_mistake_costs_one_line(
    sleeper: EmbeddedTriton, capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    assert main(["loadtest", "--url", sleeper.url, *([] if "--rows" in flags else ["--rows", "8"]), *flags]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("blobzero: expected")
    assert says in line


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--url", "127.0.0.1:9"], "expected a Triton server at 127.0.0.1:9"),
        (["--url", "nonsense"], "expected HOST:PORT"),
        (["--repository", "nowhere"], "expected nowhere/blobnet"),
        (["--concurrency", "0"], "expected --concurrency like"),
        (["--concurrency", "1.5"], "expected whole numbers"),
        (["--rate", "1:2"], "expected --rate like"),
        (["--slo", "fast"], "expected --slo like p99=20ms"),
        (["--slo", "p99=1ms", "--rate", "5"], "expected --slo with one --transport and without --rate"),
        (["--require", "0"], "expected --require above 0"),
        (["--slo", "p99=20ms", "--require", "4"], "is judged by 300 requests; got 4; use --duration 75"),
        (["--model", "other"], "expected --url with --model other"),
        (["--duration", "0"], "expected a duration above 0 s"),
        (["--processes", "0"], "expected 1 to 1024 client processes"),
        (["--key-file", "nowhere", "--repository", "nowhere"], "expected"),
    ],
)
def test_a_mistake_without_a_server_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["loadtest", *flags]) == 1
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []
