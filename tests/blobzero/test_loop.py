# SPDX-License-Identifier: Apache-2.0
"""The learning loop's settings, its folder and its report."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blobzero.loop.config import PRESETS, LoopSettings, load_settings
from blobzero.loop.loop import LoopConfig, LoopError, LoopRun, loop
from blobzero.loop.report import ReportConfig, ReportError, bids_made, report
from blobzero.monitor.metrics import FleetMetrics
from blobzero.verbs.selfplay import SelfPlayConfig, selfplay
from clients.files import write_json
from clients.selfplay.folder import RunFolder, RunFolderError
from clients.selfplay.records import shard_paths, write_shard
from export.publishing.publish import rollback
from export.publishing.registry import Registry
from mcts_ext.config import DealConfig, SearchConfig, Unit
from mcts_ext.decode import decode
from mcts_ext.errors import InvalidConfig
from mcts_ext.pool import SelfPlayPool
from mcts_ext.rules import Round
from tests.support.evaluators import run_pool, uniform


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_every_preset_is_sound(name: str) -> None:
    settings = load_settings(name)
    for generation in (0, settings.generations - 1):
        assert settings.rounds_of(generation) == settings.rounds[generation > 0]
        search = settings.search_of(generation)
        assert search.determinizations == settings.determinizations[generation > 0]
        assert search.simulations == settings.simulations[generation > 0]
    assert settings.meets_bots(settings.generations - 1)


def test_reference_is_five_million_rounds() -> None:
    settings = load_settings("reference")
    assert settings.generations == 500
    assert sum(settings.rounds_of(generation) for generation in range(500)) == pytest.approx(5_000_000, rel=1e-3)
    fixed = {"c_puct": 0.6, "q_scale": 60, "dirichlet_fraction": 0, "temperature": 1, "temperature_final": 1}
    assert settings.search_of(0) == SearchConfig(determinizations=1, simulations=15, **fixed)
    assert settings.search_of(499) == SearchConfig(determinizations=5, simulations=50, **fixed)


def test_a_ramp_is_even() -> None:
    settings = replace(load_settings("demo"), generations=5, rounds=(100, 500))
    assert [settings.rounds_of(generation) for generation in range(5)] == [100, 200, 300, 400, 500]
    assert [replace(settings, bots_every=2).meets_bots(generation) for generation in range(5)] == [0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("generations = 12", "generations = 0", "expected generations of at least 1, got 0"),
        ("even_root = true", "even_root = 1", "expected match_even_root as true or false, got 1"),
        ('gate = "none"', 'gate = "often"', "expected gate of none, better, got 'often'"),
        ("players = [4]", "players = [9]", "expected players in 3..8, got 9"),
        ("steps = ", "stops = ", "got missing or unknown steps, stops"),
        ("generations = 12", "generations = ", "expected TOML"),
        ("rounds = [4000, 12000]", "rounds = [5]", "rounds of two whole numbers, first and last generation, got [5]"),
        ("rounds = [4000, 12000]", "rounds = [5, 6, 7]", "rounds of two whole numbers, first and last generation, got"),
        ("rounds = [4000, 12000]", "rounds = 5", "rounds of two whole numbers, first and last generation, got 5"),
        ("rounds = [4000, 12000]", "rounds = [5, 6.5]", "rounds of two whole numbers, first and last generation, got"),
        ("rounds = [4000, 12000]", "rounds = [4000, 0]", "expected rounds of at least 1, got [4000, 0]"),
        ("rounds = [4000, 12000]", "rounds = [-1, 5]", "expected rounds of at least 1, got [-1, 5]"),
        ("simulations = [6, 6]", "simulations = [6, 0]", "expected simulations in 1..1000000, got 0"),
        ("\nq_scale = 60", "\nq_scale = 0", "expected q_scale above 0 with even_root, got 0"),
        ("determinizations = [6, 6]", "determinizations = []", "determinizations of two whole numbers"),
        ("determinizations = [6, 6]", "determinizations = [6, true]", "determinizations of two whole numbers"),
        (
            "match_search = [15, 6]",
            "match_search = [3]",
            "two whole numbers, determinizations and simulations, got [3]",
        ),
        ("temperature = [1.0, 1.0]", "temperature = [1.0]", "of two numbers, start and end of a round, got [1.0]"),
        (
            "temperature = [1.0, 1.0]",
            'temperature = ["1", 1]',
            "of two numbers, start and end of a round, got ['1', 1]",
        ),
        ("players = [4]", "players = 4", "expected players as a list of whole numbers, got 4"),
        ("players = [4]", 'players = ["4"]', "expected players as a list of whole numbers, got ['4']"),
        ("players = [4]", "players = []", "expected at least one number of players and one number of cards, got none"),
        (
            'bots = ["heuristic", "search-uniform"]',
            'bots = "heuristic"',
            "expected bots as a list of strings, got 'heuristic'",
        ),
        ('bots = ["heuristic", "search-uniform"]', "bots = [1]", "expected bots as a list of strings, got [1]"),
        ("steps = 1000", "steps = 1000.5", "expected steps as a whole number, got 1000.5"),
        ("c_puct = 1.0", 'c_puct = "1.0"', "expected c_puct as a number, got '1.0'"),
        ("c_puct = 1.0", "c_puct = [1.0]", "expected c_puct as a number, got [1.0]"),
        ('network = "small"', "network = 1", "expected network as a string, got 1"),
        ('unit = "round"', 'unit = "match"', "expected unit of round, game, got 'match'"),
        ('unit = "round"', "unit = [1]", "expected unit of round, game, got (1,)"),
        ("learning_rate = 3e-3", "learning_rate = nan", "expected --learning-rate in 0..10, got nan"),
        ('"search-uniform"', '"serch"', "got serch"),
        ('gate = "none"', "gate = 0", "expected gate of none, better, got 0"),
    ],
)
def test_wrong_settings_are_named(old: str, new: str, says: str, tmp_path: Path) -> None:
    text = (PRESETS / "demo.toml").read_text()
    assert old in text
    path = tmp_path / "own.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(InvalidConfig) as caught:
        load_settings(str(path))
    assert says in str(caught.value)
    with pytest.raises(InvalidConfig, match="expected a preset of demo, reference, or a TOML file, got 'nothing'"):
        load_settings("nothing")


@pytest.mark.parametrize("generations", [1, 2])
@pytest.mark.parametrize("ends", [{"rounds": (5, 0)}, {"simulations": (4, 0)}, {"determinizations": (0, 8)}])
def test_both_ends_of_a_ramp_are_checked(ends: dict[str, tuple[int, int]], generations: int) -> None:
    with pytest.raises(InvalidConfig, match="expected"):
        replace(load_settings("demo"), generations=generations, **ends)  # type: ignore[arg-type]


def test_a_number_may_be_whole() -> None:
    assert replace(load_settings("demo"), temperature=(1, 0), c_puct=2).search_of(0).temperature_final == 0


def small() -> LoopSettings:
    return replace(load_settings("demo"), generations=2)


def test_a_folder_belongs_to_one_loop(tmp_path: Path) -> None:
    LoopRun(LoopConfig(out=tmp_path, seed=1), small()).open()
    LoopRun(LoopConfig(out=tmp_path, seed=1), small()).open()
    for other in (
        LoopRun(LoopConfig(out=tmp_path, seed=2), small()),
        LoopRun(LoopConfig(out=tmp_path, seed=1), replace(small(), steps=7)),
    ):
        with pytest.raises(LoopError, match="expected the same"):
            other.open()
    (tmp_path / "file").touch()
    with pytest.raises(LoopError, match=r"expected to write .*, got Not a directory"):
        LoopRun(LoopConfig(out=tmp_path / "file", seed=1), small()).open()


@pytest.mark.parametrize("seed", ["7", 1.5, -1, 2**64, True, None])
def test_a_seed_in_the_folder_that_is_none_is_refused(seed: object, tmp_path: Path) -> None:
    (tmp_path / "loop.json").write_text(json.dumps({"seed": seed}))
    with pytest.raises(LoopError, match=r"expected the seed in .*loop.json in 0\.\.\d*, got .* choose another --out"):
        LoopRun(LoopConfig(out=tmp_path), small()).open()
    (tmp_path / "run.json").write_text(json.dumps({"seed": seed}))
    with pytest.raises(RunFolderError, match=r"expected the seed in .*run.json in 0.* choose another --out"):
        RunFolder(tmp_path).seed()


def test_loops_of_neighbouring_seeds_share_no_rounds_and_no_deals(tmp_path: Path) -> None:
    loops = [LoopRun(LoopConfig(out=tmp_path, seed=seed), small()) for seed in range(5)]
    uses = [("self-play",), ("match", "before"), ("match", "heuristic")]
    seeds = {loop.seed_for(*use, generation) for loop in loops for use in uses for generation in range(20)}
    assert len(seeds) == 5 * 3 * 20
    assert 0 <= min(seeds) <= max(seeds) < 2**63


def finished(run: Path, generation: int) -> None:
    found = {"mean": 0.5, "low": -0.5, "high": 1.5}
    result = {
        "generation": generation,
        "version": generation + 2,
        "before": generation + 1,
        "promoted": True,
        "selfplay": {"rounds": 100, "rounds_per_min": 4000.0, "evaluations_per_s": 50_000.0, "seconds": 1.5},
        "train": {"step": 100 * (generation + 1)},
        "matches": {"before": {"difference": found, "elo": found}, "heuristic": {"difference": found, "elo": found}},
        "seconds": {"selfplay": 1.5, "train": 1.0, "publish": 0.5, "match": 2.0},
    }
    (run / "generations").mkdir(exist_ok=True)
    (run / "generations" / f"{generation:03}.json").write_text(json.dumps(result))


def test_the_report_is_one_page(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="expected a finished generation"):
        report(ReportConfig(tmp_path))
    for generation in (0, 1):
        finished(tmp_path, generation)
    (tmp_path / "train").mkdir()
    lines = [{"step": step, "policy_loss": 1.0, "value_loss": 0.1} for step in (50, 100)]
    (tmp_path / "train" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert report(ReportConfig(tmp_path)) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "http" not in page
    assert "+0.50 (-0.50 to +1.50)" in page
    for days in ("20.8 hours", "2.9 days"):  # 5 million at 4,000 a minute; 5 s for 100 rounds
        assert days in page
    for name in ("strength", "rating", "losses", "rates", "time"):
        assert (tmp_path / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("n_generations", [1, 50])
def test_a_report_of_few_or_many_generations_and_intervals_without_end(n_generations: int, tmp_path: Path) -> None:
    """A match of one deal has no interval; lines of many points lose their marks."""
    for generation in range(n_generations):
        finished(tmp_path, generation)
    path = tmp_path / "generations" / "000.json"
    result = json.loads(path.read_text())
    result["matches"]["heuristic"]["difference"] = {"mean": 0.5, "low": None, "high": None}
    path.write_text(json.dumps(result))
    assert report(ReportConfig(tmp_path)) == 0
    result["selfplay"] |= {"rounds": 0, "rounds_per_min": 0.0, "rounds_before": 100}  # killed after its self-play
    path.write_text(json.dumps(result))
    assert report(ReportConfig(tmp_path)) == 0
    assert f"<td>{100 * n_generations:,}</td>" in (tmp_path / "report.html").read_text()
    assert ("+0.50 (... to ...)" in (tmp_path / "report.html").read_text()) == (n_generations == 1)


def test_bids_made_are_counted_by_hand_size_and_seat(tmp_path: Path) -> None:
    """Bids and tricks of rounds played again here; a dealer whose bid was forced counts like everybody."""
    search, deal = SearchConfig(determinizations=1, simulations=2), DealConfig(players=(3, 5), cards=(1, 4))
    records = run_pool(SelfPlayPool(range(300), seed=1, deal=deal, search=search), uniform)
    write_shard(tmp_path / "0.parquet", records, provenance={})
    made, total = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for number in range(300):
        rows = np.flatnonzero(records.round == number)
        opening = decode(records.observation[rows[0]].tobytes())
        leader = int(records.seat[rows[0]])
        hands = np.roll(np.array([opening.hand, *opening.others]), leader, axis=0).tolist()
        table = Round(hands, dealer=(leader - 1) % opening.n_players, trump=opening.trump)
        pending = records.action[rows].tolist()
        while not table.is_over:
            legal = table.legal_actions()
            table.apply(pending.pop(0) if len(legal) > 1 else legal[0])
        for place in range(table.n_players):
            seat = (leader + place) % table.n_players
            total[table.n_cards, place] += 1
            made[table.n_cards, place] += table.bids[seat] == table.tricks_won[seat]
    assert bids_made(tmp_path) == {key: (made[key], total[key]) for key in total}


def test_a_refused_version_is_rolled_back_once(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop killed between the rollback and its result comes here again."""
    rolled: list[int] = []

    def without_server(models: Path, version: int, *, url: str, key_file: Path | None) -> None:
        rolled.append(version)
        rollback(models, version)

    monkeypatch.setattr("export.publishing.publish.rollback", without_server)
    loop = LoopRun(LoopConfig(out=repository.parent / "loop", repository=repository), small())
    for _ in range(2):
        loop._roll_back(2, 3, "127.0.0.1:9")
    assert rolled == [2]
    assert [entry.origin for entry in Registry(repository)] == [1, 2, 3, 2]


def test_self_play_is_examined_once(tmp_path: Path) -> None:
    loop = LoopRun(LoopConfig(out=tmp_path, seed=1), small())
    found = {"play": None, "exploration": []}
    write_json(tmp_path / "selfplay" / "000" / "examined.json", found)
    assert loop._examine(0, "127.0.0.1:9") == found  # no server is asked


def test_a_loop_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    settings = replace(small(), network="tiny")
    with pytest.raises(InvalidConfig, match="expected a network preset of"):
        LoopRun(LoopConfig(out=tmp_path / "loop"), settings).open()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unit", ["round", "game"])
def test_self_play_that_is_complete_keeps_its_summary(
    unit: Unit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A loop that was interrupted in its matches plays nothing again; one in its self-play does."""
    settings = replace(small(), unit=unit, rounds=(30, 30), cards=(2,))
    played: list[SelfPlayConfig] = []

    def without_network(config: SelfPlayConfig, *, metrics: FleetMetrics) -> int:
        played.append(config)
        return selfplay(replace(config, evaluator="uniform", url=None, workers=1), metrics=metrics)

    monkeypatch.setattr("blobzero.loop.loop.selfplay", without_network)
    loop = LoopRun(LoopConfig(out=tmp_path, seed=1), settings)
    assert loop.play(0, "127.0.0.1:9") == 0
    path = tmp_path / "selfplay" / "000" / "summary.json"
    before = path.read_text()
    assert json.loads(before)["rounds"] == played[0].rounds_in_all() >= 30
    assert loop.play(0, "127.0.0.1:9") == 0
    assert (len(played), path.read_text()) == (1, before)
    said = capfd.readouterr()
    assert "self-play is complete" in said.err
    assert "next " not in said.out + said.err
    for shard in shard_paths(path.parent / "shards"):
        shard.unlink()
    loop.play(0, "127.0.0.1:9")
    assert len(played) == 2


@pytest.mark.parametrize("within", ["self-play", "matches"])
def test_an_interrupted_loop_says_so_before_it_waits_for_its_server(
    within: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def server(run: LoopRun) -> Iterator[str]:
        yield "127.0.0.1:9"
        run.say("Triton has ended")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LoopRun, "server", server)
    monkeypatch.setattr(LoopRun, "play", lambda *_: 130 if within == "self-play" else 0)
    monkeypatch.setattr(LoopRun, "finish", interrupted)
    assert loop(LoopConfig(out=tmp_path / "run")) == 130
    lines = capsys.readouterr().err.splitlines()[-2:]
    assert lines == ["interrupted; the same command resumes. Waiting for Triton to end", "Triton has ended"]
