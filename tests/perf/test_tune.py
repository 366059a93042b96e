# SPDX-License-Identifier: Apache-2.0
"""The search for settings, on a machine that is made up: noise does not win, a real gain does, drift cancels."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blobzero.cli import main
from export.publishing.config import render_config
from perf.tune.config import TuneConfig
from perf.tune.measure import Measured, Refused, penalized
from perf.tune.report import TuneResult, report
from perf.tune.space import Setting, Space, UnreadableConfig, apply, as_text, client_flags, read_config, space_of
from perf.tune.study import StudyError, Tuning, Verdict, finished, open_study
from ui.next_step import command_line

Rate = Callable[[Setting], float]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.pbtxt"
    path.write_text(render_config())
    return path


@pytest.fixture
def space(config_file: Path) -> Space:
    return space_of("rows", read_config(config_file))


class Machine:
    """Has a rate for every setting, with noise, and a speed that drifts from measurement to measurement."""

    def __init__(self, rate: Rate, *, noise: float = 0.0, drift: float = 0.0, seed: int = 0) -> None:
        self.rate, self.noise, self.drift = rate, noise, drift
        self.random = np.random.default_rng(seed)
        self.asked: list[dict[str, int | str]] = []

    def __call__(self, setting: Setting) -> Measured:
        self.asked.append(dict(setting))
        speed = math.exp(self.noise * self.random.standard_normal() + self.drift * len(self.asked))
        return Measured(self.rate(setting) * speed, latency_ms=10.0)


def tuning(path: Path, space: Space, machine: Machine, *, seed: int = 0) -> Tuning:
    return Tuning(open_study(path, seed=seed), space, machine, limit_ms=None, show=lambda *_, **__: None)


def tuned(path: Path, space: Space, machine: Machine, *, seed: int = 0, n_trials: int = 12) -> Verdict:
    one = tuning(path, space, machine, seed=seed)
    one.search(n_trials)
    best = one.choose()
    assert best is not None
    return one.compare(best, pairs=8)


def better_with_one_instance(setting: Setting) -> float:
    return 1200.0 if setting["instances"] == 1 else 1000.0


@pytest.mark.slow
def test_noise_alone_does_not_beat_the_default(tmp_path: Path, space: Space) -> None:
    """One in forty would, by chance: of 20, three or more have a probability of 1.3%, and these seeds are fixed."""
    verdicts = [
        tuned(tmp_path / f"{seed}.log", space, Machine(lambda _: 1000.0, noise=0.1, seed=seed), seed=seed)
        for seed in range(20)
    ]
    assert sum(one.is_win for one in verdicts) <= 2
    assert sum(one.ratio.low < 1 < one.ratio.high for one in verdicts) >= 17


def test_a_real_gain_is_found_and_proven(tmp_path: Path, space: Space) -> None:
    verdict = tuned(tmp_path / "study.log", space, Machine(better_with_one_instance, noise=0.03))
    assert verdict.setting["instances"] == 1
    assert verdict.is_win
    assert verdict.ratio.low < 1.2 < verdict.ratio.high
    assert verdict.medians[1] > verdict.medians[0]


def test_drift_does_not_pass_for_a_gain(tmp_path: Path, space: Space) -> None:
    """A machine that grows 2% faster with every measurement: the last settings tried are no better for that."""
    one = tuning(tmp_path / "study.log", space, Machine(lambda _: 1000.0, drift=0.02))
    one.search(12)
    trials = finished(open_study(tmp_path / "study.log", seed=0))
    assert max(abs(trial.value or 0.0) for trial in trials) < 0.05
    best = one.choose()
    assert best is not None
    assert not one.compare(best, pairs=8).is_win


def test_a_study_goes_on_where_it_was_killed(tmp_path: Path, space: Space) -> None:
    class Killed(Exception):
        pass

    class Breaks(Machine):
        def __call__(self, setting: Setting) -> Measured:
            if len(self.asked) == 7:
                raise Killed
            return super().__call__(setting)

    path = tmp_path / "study.log"
    with pytest.raises(Killed):
        tuning(path, space, Breaks(better_with_one_instance)).search(12)
    before = finished(open_study(path, seed=0))
    assert len(before) == 5  # two measurements of the default, and those of the second block before the third
    machine = Machine(better_with_one_instance)
    tuning(path, space, machine).search(12)
    after = finished(open_study(path, seed=0))
    assert len(after) == 12
    assert [one.params for one in after[:5]] == [one.params for one in before]
    assert sum(setting != space.default for setting in machine.asked) <= 7
    tuning(path, space, machine).search(12)
    assert len(finished(open_study(path, seed=0))) == 12


def test_a_setting_that_is_refused_is_a_failed_trial_with_its_reason(tmp_path: Path, space: Space) -> None:
    class Picky(Machine):
        def __call__(self, setting: Setting) -> Measured:
            if setting["delay_us"] != 0:
                raise Refused("expected no delay")
            return super().__call__(setting)

    one = tuning(tmp_path / "study.log", space, Picky(better_with_one_instance))
    one.search(12)
    trials = finished(open_study(tmp_path / "study.log", seed=0))
    refused = [trial for trial in trials if trial.value is None]
    assert len(trials) == 12
    assert {trial.user_attrs["reason"] for trial in refused} == {"expected no delay"}
    assert any(trial.value is not None for trial in trials)
    best = one.choose()
    assert best is not None
    assert best["delay_us"] == 0


def test_a_broken_promise_costs_and_does_not_win(space: Space) -> None:
    kept, broken = Measured(1000.0, latency_ms=10.0), Measured(1500.0, latency_ms=30.0)
    assert penalized(broken, 20.0) < penalized(kept, 20.0) < penalized(broken, None)
    pairs = [(kept, replace(broken, rate=1500.0 + i)) for i in range(8)]
    assert Verdict(space.default, space.default, pairs, limit_ms=None).is_win
    assert not Verdict(space.default, space.default, pairs, limit_ms=20.0).is_win


def test_the_space_holds_the_default_whatever_it_is(config_file: Path) -> None:
    config_file.write_text(
        render_config().replace("dynamic_batching { }", "dynamic_batching { max_queue_delay_microseconds: 9000 "
                                "preferred_batch_size: [ 96 ] }").replace("count: 2", "count: 40")
    )  # fmt: skip
    for objective in ("rows", "rounds"):
        space = space_of(objective, read_config(config_file))
        assert set(space.default) == set(space.distributions)
        for setting in (space.default, *space.guesses):
            for name, value in setting.items():
                assert space.distributions[name]._contains(space.distributions[name].to_internal_repr(value)), name
        assert (space.default["delay_us"], space.default["preferred"], space.default["instances"]) == (9000, "96", 40)


def test_a_setting_stands_in_the_configuration_and_nothing_else_changes(config_file: Path, space: Space) -> None:
    before = read_config(config_file)
    after = apply(before, {**space.default, "delay_us": 250, "preferred": "256,512", "instances": 3, "threads": 1})
    text = as_text(after)
    config_file.write_text(text)
    again = read_config(config_file)
    assert again == after
    assert again.dynamic_batching.max_queue_delay_microseconds == 250
    assert list(again.dynamic_batching.preferred_batch_size) == [256, 512]
    assert [group.count for group in again.instance_group] == [3]
    assert again.parameters["threads"].string_value == "1"
    assert as_text(apply(again, space.default)) == as_text(apply(before, space.default))
    assert read_config(config_file).backend == before.backend
    assert apply(before, space.default) == before


def test_flags_of_the_clients_are_those_of_the_commands(space: Space, config_file: Path) -> None:
    assert client_flags(space.default) == "blobzero loadtest --rows 256 --concurrency 8"
    rounds = space_of("rounds", read_config(config_file)).default | {"workers": 2, "games": 128, "groups": 3}
    assert client_flags(rounds) == "blobzero selfplay --workers 2 --games 384 --groups 3"


def test_a_report_says_that_the_default_was_not_beaten(
    tmp_path: Path, space: Space, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    one = tuning(tmp_path / "study.log", space, Machine(lambda _: 1000.0, noise=0.05))
    one.search(9)
    best = one.choose()
    assert best is not None
    verdict = one.compare(best, pairs=6)
    config = TuneConfig(objective="rows", out=tmp_path)
    result = TuneResult(config, space, open_study(tmp_path / "study.log", seed=0), verdict, None, False)
    report(Console(), result, is_broken_off=False)
    said = capsys.readouterr().out
    assert "could not beat the default: ratio" in said
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "tune.json").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--limit", "p99=20ms"], "--limit only with --objective rows"),
        (["--objective", "rows", "--limit", "fast"], "expected --limit like p99=20ms"),
        (["--pairs", "5"], "--pairs of 6 or more"),
        (["--trials", "0"], "--trials of 1 or more"),
        (["--repository", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    flags: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models" / "blobnet").mkdir(parents=True)
    where = [] if "--repository" in flags else ["--repository", str(tmp_path / "models")]
    assert main(["tune", *flags, *where, "--out", str(tmp_path / "tune")]) == 1
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1


def test_a_configuration_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text("name: [")
    with pytest.raises(UnreadableConfig, match="expected a model configuration at"):
        read_config(path)


# -- promises ---------------------------------------------------------------------------------------------------------


def test_a_default_that_breaks_the_promise_is_beaten_by_a_slower_setting_that_keeps_it(space: Space) -> None:
    pairs = [(Measured(1000.0, 30.0 + i / 10), Measured(800.0, 15.0)) for i in range(8)]
    verdict = Verdict(space.default, space.default, pairs, limit_ms=20.0)
    assert verdict.ratio.high < 1
    assert verdict.keep_limit == (False, True)
    assert verdict.is_win
    unsteady = [(Measured(1000.0, latency), Measured(800.0, 18.0)) for latency in (5.0, 40.0) * 4]
    assert not Verdict(space.default, space.default, unsteady, limit_ms=20.0).is_win
    assert not Verdict(space.default, space.default, pairs, limit_ms=10.0).is_win


def test_a_finalist_that_keeps_the_promise_comes_before_a_faster_one(tmp_path: Path, space: Space) -> None:
    class Hasty(Machine):
        def __call__(self, setting: Setting) -> Measured:
            return replace(super().__call__(setting), latency_ms=20.2 if setting["instances"] == 1 else 12.0)

    one = Tuning(
        open_study(tmp_path / "study.log", seed=0), space, Hasty(better_with_one_instance), limit_ms=20.0,
        show=lambda *_, **__: None,
    )  # fmt: skip
    one.search(12)
    best = one.choose()
    assert best is not None
    assert best["instances"] != 1


# -- what breaks ------------------------------------------------------------------------------------------------------


class Stumbles(Machine):
    """Refuses every third measurement: a server on its way back."""

    def __call__(self, setting: Setting) -> Measured:
        found = super().__call__(setting)
        if len(self.asked) % 3 == 0:
            raise Refused("not there yet")
        return found


def test_a_comparison_survives_a_server_that_stumbles(tmp_path: Path, space: Space) -> None:
    one = tuning(tmp_path / "study.log", space, Stumbles(lambda _: 1000.0))
    verdict = one.compare({**space.default, "instances": 1}, pairs=6)
    assert len(verdict.pairs) == 6


def test_a_study_survives_a_line_that_was_not_written_whole(tmp_path: Path, space: Space) -> None:
    path = tmp_path / "study.log"
    tuning(path, space, Machine(better_with_one_instance)).search(6)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 4, "worker_id": "x", "tri')
    tuning(path, space, Machine(better_with_one_instance)).search(9)
    assert len(finished(open_study(path, seed=0))) == 9
    path.write_bytes(b"no study\n" + whole)
    with pytest.raises(StudyError, match="expected a study in"):
        open_study(path, seed=0)


def test_a_trial_that_was_under_way_at_a_kill_is_asked_again(tmp_path: Path, space: Space) -> None:
    path = tmp_path / "study.log"
    study = open_study(path, seed=0)
    study.enqueue_trial({**space.default, "delay_us": 777})
    study.ask(space.distributions)
    machine = Machine(lambda _: 1000.0)
    tuning(path, space, machine).search(1)
    assert any(setting["delay_us"] == 777 for setting in machine.asked)


def test_the_command_that_goes_on_is_the_one_that_was_given(tmp_path: Path) -> None:
    config = TuneConfig(objective="rows", limit="p99=50ms", seconds=0.3, config_name="gpu", out=tmp_path / "a b")
    assert command_line("tune", config) == (
        f"blobzero tune --objective rows --limit p99=50ms --seconds 0.3 --config-name gpu --out '{tmp_path}/a b'"
    )


# -- configurations ---------------------------------------------------------------------------------------------------


def test_a_configuration_for_a_gpu_keeps_its_group_and_has_no_threads(config_file: Path) -> None:
    config_file.write_text(render_config("gpu").replace("kind: KIND_GPU", "kind: KIND_GPU gpus: [ 1 ]"))
    before = read_config(config_file)
    space = space_of("rounds", before)
    assert "threads" not in space.default
    assert all(set(guess) == set(space.default) for guess in space.guesses)
    after = apply(before, {**space.default, "instances": 3})
    assert "threads" not in after.parameters
    assert list(after.instance_group[0].gpus) == [1]
    after.instance_group[0].count = 2
    assert after == before


def test_a_small_largest_batch_leaves_out_what_it_cannot_take(config_file: Path) -> None:
    config_file.write_text(render_config().replace("max_batch_size: 1024", "max_batch_size: 32"))
    space = space_of("rows", read_config(config_file))
    assert space.default["rows"] == 32
    for setting in (space.default, *space.guesses):
        for name, value in setting.items():
            assert space.distributions[name]._contains(space.distributions[name].to_internal_repr(value)), name


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("count: 2", "count: 2 }, { count: 1", "expected one instance_group"),
        (
            'key: "threads" value: { string_value: "0" }',
            'key: "threads" value: { string_value: "all" }',
            "whole number",
        ),
    ],
)
def test_a_configuration_that_cannot_be_tuned_is_told(
    config_file: Path, before: str, after: str, expected: str
) -> None:
    text = render_config()
    assert before in text
    config_file.write_text(text.replace(before, after))
    with pytest.raises(UnreadableConfig, match=expected):
        space_of("rows", read_config(config_file))
