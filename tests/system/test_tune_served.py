# SPDX-License-Identifier: Apache-2.0
"""`blobzero tune` against a real server: a configuration that is refused is survived, one that wins is served."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blobzero.cli import main
from clients.lock import sole_writer
from export.publishing.config import config_path
from export.publishing.server import ModelServer
from perf.load import Target
from perf.tune.measure import Bench, Measured, Refused
from perf.tune.run import host
from perf.tune.space import Space, read_config, space_of
from serving.config import ServerConfig
from serving.embedded import EmbeddedTriton
from tests.support.tiny_model import write_repository

SLOW = "max_queue_delay_microseconds: 30000 preferred_batch_size: [ 1024 ]"
QUICK = ["--trials", "4", "--seconds", "0.3", "--pairs", "6"]


def repository(folder: Path, *, batching: str = "") -> Path:
    return write_repository(folder / "models", batching=batching)


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return space_of("rows", read_config(config_path(repository(tmp_path))))


@pytest.fixture
def bench(tmp_path: Path, space: Space) -> Iterator[Bench]:
    base = read_config(config_path(tmp_path / "models"))
    with EmbeddedTriton(ServerConfig(tmp_path / "models", log_file=tmp_path / "log")) as triton:
        yield Bench(
            Target(triton.url), base, objective="rows", slo=None, seconds=0.5, seed=0, revive=triton.restart
        )  # fmt: skip


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timing
def test_a_default_that_waits_is_beaten_and_what_beats_it_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perf.tune.space.DEFAULT_LOAD", {"rows": 64, "in_flight": 4})  # never fills a batch
    models, out = repository(tmp_path, batching=SLOW), tmp_path / "tune"
    flags = ["--objective", "rows", "--repository", str(models), "--out", str(out), "--json"]
    assert main(["tune", *QUICK, *flags]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found == json.loads((out / "tune.json").read_text())
    assert len(found["trials"]) == 4
    assert found["default"]["delay_us"] == 30000
    verdict = found["verdict"]
    assert verdict["is_win"]
    assert verdict["ratio"]["low"] > 1
    assert len(verdict["pairs"]) == 6
    path = config_path(models, f"tuned-{host()}")
    assert found["written"] == str(path)
    text = path.read_text()
    assert f"--config-name tuned-{host()}" in text
    assert f"interval {verdict['ratio']['low']:.3f}" in text
    assert "beats the default" in captured.err
    assert (out / "tune.png").exists()

    with EmbeddedTriton(ServerConfig(models, config_name=path.stem, log_file=tmp_path / "log")) as triton:
        with ModelServer(triton.url) as server:
            served = server.config()
        assert served.dynamic_batching.max_queue_delay_microseconds == verdict["setting"]["delay_us"]
        assert sum(group.count for group in served.instance_group) == verdict["setting"]["instances"]
        triton.infer_once(timeout_s=10.0)

    assert main(["tune", *QUICK, "--repository", str(models), "--out", str(out)]) == 1
    assert "got another objective" in capsys.readouterr().err


@pytest.mark.triton
@pytest.mark.slow
def test_a_server_takes_a_setting_and_what_it_refuses_does_not_end_it(bench: Bench, space: Space) -> None:
    assert bench(space.default).rate > 0
    taken = bench({**space.default, "instances": 3, "delay_us": 500, "preferred": "64"})
    assert isinstance(taken, Measured)
    with pytest.raises(Refused, match="threads"):
        bench({**space.default, "threads": "many"})
    assert bench(space.default).rate > 0


@pytest.mark.triton
@pytest.mark.slow
def test_rounds_are_measured_with_players(tmp_path: Path) -> None:
    base = read_config(config_path(repository(tmp_path)))
    setting = {**space_of("rounds", base).default, "games": 64}
    with EmbeddedTriton(ServerConfig(tmp_path / "models", log_file=tmp_path / "log")) as triton:
        target = Target(triton.url)
        bench = Bench(target, base, objective="rounds", slo=None, seconds=2.0, seed=0, revive=triton.restart)
        assert 100 < bench(setting).rate < 10**6


@pytest.mark.triton
@pytest.mark.slow
def test_a_server_that_others_run_is_tuned_and_given_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models, out, key = repository(tmp_path), tmp_path / "tune", tmp_path / "key"
    key.write_text("a-key_of-24-characters-00")
    flags = ["--objective", "rows", "--trials", "1", "--seconds", "0.3", "--pairs", "6", "--repository", str(models)]
    with EmbeddedTriton(ServerConfig(models, key_file=key, log_file=tmp_path / "log")) as triton:
        flags += ["--out", str(out), "--url", triton.url]
        assert main(["tune", *flags]) == 1
        assert "--key-file" in capsys.readouterr().err
        with ModelServer(triton.url, key_file=key) as server:
            before = server.config()
            assert main(["tune", *flags, "--key-file", str(key)]) == 0
            assert server.config() == before
    said = capsys.readouterr().out
    assert "verdict" in said
    assert "starting Triton" not in said


@pytest.mark.triton
@pytest.mark.slow
def test_a_server_that_others_run_is_given_back_after_sigterm(tmp_path: Path) -> None:
    models, out = repository(tmp_path), tmp_path / "tune"
    command = [sys.executable, "-m", "blobzero.cli", "tune", "--objective", "rows", "--trials", "500", "--url"]
    with EmbeddedTriton(ServerConfig(models, log_file=tmp_path / "log")) as triton, ModelServer(triton.url) as server:
        before = server.config()
        flags = [triton.url, "--seconds", "0.3", "--repository", str(models), "--out", str(out)]
        with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True) as study:
            deadline = time.monotonic() + 60
            while server.config() == before:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            study.terminate()
            said, _ = study.communicate(timeout=30)
        assert study.returncode == 143, said
        assert server.config() == before


@pytest.mark.triton
@pytest.mark.slow
def test_two_at_one_study_are_one_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models, out = repository(tmp_path), tmp_path / "tune"
    with sole_writer(out):
        assert main(["tune", "--repository", str(models), "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert "expected no other writer" in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.triton
@pytest.mark.slow
def test_an_interrupted_study_keeps_its_trials(tmp_path: Path) -> None:
    models, out = repository(tmp_path), tmp_path / "tune"
    command = [sys.executable, "-m", "blobzero.cli", "tune", "--objective", "rows", "--trials", "500"]
    flags = ["--seconds", "0.3", "--repository", str(models), "--out", str(out)]
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True) as study:
        assert study.stdout is not None
        deadline = time.monotonic() + 90
        for line in study.stdout:
            if line.startswith("trial 3"):
                break
            assert time.monotonic() < deadline
        os.kill(study.pid, signal.SIGINT)
        said = study.stdout.read()
    assert study.returncode == 130, said
    found = json.loads((out / "tune.json").read_text())
    assert found["interrupted"]
    assert len(found["trials"]) >= 3
    assert "continues after the" in said
    assert f"--seconds 0.3 --repository {models} --out {out}" in said
