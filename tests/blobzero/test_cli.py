# SPDX-License-Identifier: Apache-2.0
"""The command as a user meets it: a mistake costs one line and a non-zero status, never a traceback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tyro
from prometheus_client import CollectorRegistry

from blobzero.cli import VERBS, main
from blobzero.monitor.metrics import FleetMetrics
from blobzero.play.play import PlayConfig
from blobzero.verbs.match import MatchConfig
from blobzero.verbs.selfplay import SelfPlayConfig, selfplay
from clients.arena.players import PLAYER_SEARCH
from clients.selfplay.records import finished_rounds, read_shard, shard_paths
from mcts_ext.config import LARGEST_SEED, SearchConfig
from mcts_ext.errors import InvalidConfig
from ui.next_step import flags


def blobzero(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "blobzero.cli", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--players", "8", "--cards", "7"], "expected players x cards of at most 52, got 8 x 7 = 56"),
        (["--players", "2"], "expected players in 3..8, got 2"),
        (["--cards", "14"], "expected cards in 1..13, got 14"),
        (["--workers", "0"], "expected --workers in 1..1024, got 0"),
        (["--rounds", "0"], "expected --rounds in 1.."),
        (["--unit", "game", "--players", "8", "--cards", "7"], "expected players x cards of at most 52, got 8 x 7"),
        (["--minutes", "0"], "expected --minutes above 0, got 0.0"),
        (["--simulations", "-1"], "expected simulations in 0.."),
        (["--even-root"], "expected --q-scale above 0 with --even-root, got 0"),
        (["--evaluator", "hash", "--url", "localhost:1"], "expected --url only with --evaluator triton"),
        (["--repository", "nowhere"], "expected nowhere/blobnet"),
        (["--evaluator", "local", "--repository", "nowhere"], "expected nowhere/blobnet/<version>/model.onnx"),
        (["--url", "127.0.0.1:9", "--server-timeout", "0.3"], "127.0.0.1:9"),
        (["--evaluator", "hash", "--out", "/proc/nowhere"], "expected a folder to write at /proc/nowhere"),
    ],
)
def test_a_mistake_costs_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = blobzero("selfplay", *arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert says in lines[-1]
    assert lines[-1].startswith("blobzero: ")
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.glob("data/*")) == []


WITHOUT = """
import sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
from blobzero.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("missing", "extra", "arguments"),
    [
        ("scipy", "report", ["match", "random", "heuristic", "--deals", "2"]),
        ("torch", "train", ["publish", "--preset", "small", "--repository", "models"]),
        ("python_on_whales", "stack", ["status"]),
        ("optuna", "tune", ["tune", "--repository", "models"]),
    ],
)
def test_a_package_that_is_not_installed_costs_one_line(
    missing: str, extra: str, arguments: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    expected = f"blobzero: expected the package {missing}, got none; pip install 'blobzero[{extra}]'"
    assert done.stderr.splitlines() == [expected]


@pytest.mark.parametrize(
    ("config", "default"), [(SelfPlayConfig, SearchConfig()), (MatchConfig, PLAYER_SEARCH), (PlayConfig, PLAYER_SEARCH)]
)
def test_flags_make_the_search_that_they_name(config: type, default: SearchConfig) -> None:
    """And the flags that a command proposes, or starts another with, are read as the search that they stand for."""
    search = SearchConfig(determinizations=7, simulations=11, c_puct=0.3, q_scale=4.0, even_root=True)
    players = ["random", "random"] if config is MatchConfig else []
    assert tyro.cli(config, args=players).search == default
    assert tyro.cli(config, args=[*players, *flags(search, default)]).search == search
    with pytest.raises(InvalidConfig, match="expected simulations in"):
        tyro.cli(config, args=[*players, "--simulations", "-1"])


def test_unknown_flags_and_verbs_are_refused(tmp_path: Path) -> None:
    assert blobzero("selfplay", "--rouns", "3", cwd=tmp_path).returncode == 2
    assert blobzero("selfpaly", cwd=tmp_path).returncode == 2
    assert blobzero("selfplay", "--workers", "many", cwd=tmp_path).returncode == 2
    assert blobzero("selfplay", "--unit", "match", cwd=tmp_path).returncode == 2


def test_a_port_that_is_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from export.publishing.config import ensure_config

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ensure_config(tmp_path / "models")
    version = tmp_path / "models" / "blobnet" / "1"
    version.mkdir()
    (version / "model.onnx").write_bytes(b"not reached")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = blobzero("serve", "--repository", "models", "--grpc-port", port, cwd=tmp_path)
    assert done.returncode == 1
    assert port in done.stderr
    assert not list(tmp_path.glob("*.log"))
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_empty_repository_is_to_be_published_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from blobzero.cli import main
    from export.publishing.config import ensure_config

    for _ in range(2):  # no configuration, then no version
        assert main(["serve", "--repository", str(tmp_path / "my models")]) == 1
        assert f"(blobzero publish --repository '{tmp_path}/my models')" in capsys.readouterr().err
        ensure_config(tmp_path / "my models")


def test_self_play_in_a_loop_proposes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = SelfPlayConfig(
        evaluator="hash", rounds=4, search=SearchConfig(simulations=2), workers=1, seed=1, out=tmp_path / "run"
    )
    assert selfplay(config, metrics=FleetMetrics(CollectorRegistry())) == 0
    assert "the same command" not in capsys.readouterr().out
    assert selfplay(config) == 0
    assert "next     the same command with --rounds 40" in capsys.readouterr().out


def test_json_has_the_promised_keys_and_the_folder_can_be_played_on(tmp_path: Path) -> None:
    flags = ["selfplay", "--evaluator", "hash", "--simulations", "4", "--games", "16", "--out", "run", "--seed", "5"]
    done = blobzero(*flags, "--rounds", "20", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    promised = {
        "rounds", "seconds", "rounds_per_min", "decisions", "simulations", "evaluations", "evaluations_per_s",
        "mean_execution_rows", "client_cpu_s", "server_cpu_s", "records", "model_version",
    }  # fmt: skip
    assert promised <= set(summary)
    assert summary["rounds"] == 20
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    assert (tmp_path / "run" / "throughput.png").read_bytes().startswith(b"\x89PNG")
    shards = shard_paths(tmp_path / "run" / "shards")
    provenance = read_shard(shards[0], []).provenance
    assert provenance["seed"] == 5
    assert provenance["search"]["simulations"] == 4
    old = {**summary, "cache_hit_rate": 0.03, "config": {**summary["config"], "cache_entries": 65536}}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(old))  # as it was when there was a cache of evaluations
    again = blobzero(*flags, "--rounds", "30", "--workers", "2", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["rounds"] == 10
    assert finished_rounds(tmp_path / "run" / "shards") == set(range(30))
    other = blobzero(*flags, "--seed", "6", "--rounds", "30", cwd=tmp_path)
    assert other.returncode == 1
    assert "expected the same run in run, got another seed (5, now 6)" in other.stderr


def test_a_seed_that_is_drawn_stays_with_the_folder(tmp_path: Path) -> None:
    flags = ["selfplay", "--evaluator", "hash", "--simulations", "4", "--seed", "auto", "--json"]
    found = [
        json.loads(blobzero(*flags, "--out", out, "--rounds", rounds, cwd=tmp_path).stdout)["config"]["seed"]
        for out, rounds in (("one", "5"), ("one", "10"), ("two", "5"))
    ]
    assert found[0] == found[1] != found[2]
    assert len(finished_rounds(tmp_path / "one" / "shards")) == 10


def test_whole_games_are_played_and_played_on(tmp_path: Path) -> None:
    """3 players and 2 cards: games of five rounds, 2 1 1 1 2 cards."""
    flags = ["selfplay", "--evaluator", "hash", "--simulations", "4", "--unit", "game", "--players", "3"]
    flags += ["--cards", "2", "--out", "run", "--workers", "1", "--json"]
    first = json.loads(blobzero(*flags, "--rounds", "6", cwd=tmp_path).stdout)
    assert (first["rounds"], first["config"]["unit"]) == (10, "game")
    assert json.loads(blobzero(*flags, "--rounds", "15", cwd=tmp_path).stdout)["rounds"] == 5
    expected = {32 * game + index for game in range(3) for index in range(5)}
    assert finished_rounds(tmp_path / "run" / "shards") == expected


@pytest.mark.slow
def test_ctrl_c_ends_a_run_in_order(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "blobzero.cli",
        "selfplay",
        "--evaluator",
        "hash",
        "--rounds",
        "1000000",
        "--shard-seconds",
        "1",
    ]
    process = subprocess.Popen(
        [*command, "--out", "run", "--json"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not shard_paths(tmp_path / "run" / "shards"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert json.loads(out)["rounds"] == len(finished_rounds(tmp_path / "run" / "shards"))
    assert "Traceback" not in err


def test_a_training_option_out_of_range_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--records", "nowhere", "--out", "nowhere", "--batch", "0"]) == 1
    assert capsys.readouterr().err == "blobzero: expected --batch in 1..1000000, got 0\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["selfplay", "--minutes", "nan"], "--minutes in 0..1000000000, got nan"),
        (["selfplay", "--minutes", "inf"], "--minutes in 0..1000000000, got inf"),
        (["selfplay", "--server-timeout", "-1"], "--server-timeout in 0..1000000000, got -1"),
        (["soak", "--minutes", "nan"], "--minutes in 0..1000000000, got nan"),
        (["soak", "--minutes", "1e8"], "--minutes above 0 and at most 10000"),
        (["match", "random", "random", "--server-timeout", "inf"], "--server-timeout in 0..1000000000, got inf"),
        (["loadtest", "--duration", "nan"], "--duration in 0..1000000000, got nan"),
        (["loadtest", "--rate", "1:5:nan"], "--rate like"),
        (["tune", "--seconds", "inf"], "--seconds in 0..1000000000, got inf"),
        (["top", "--interval", "nan"], "--interval in 0..1000000000, got nan"),
        *(
            ([*verb.split(), "--seed", str(seed)], f"--seed in 0..{LARGEST_SEED}, got {seed}")
            for verb in ("selfplay", "play", "match random random", "loop", "loadtest", "soak", "tune", "publish")
            for seed in (-1, 2**64)
        ),
        (["train", "--records", "r", "--out", "o", "--seed", str(2**64)], f"--seed in 0..{LARGEST_SEED}, got {2**64}"),
        (["selfplay", "--url", "nowhere"], "HOST:PORT of a server's gRPC endpoint, got 'nowhere'"),
        (["loop", "--key-file", "nowhere"], "a file with a key at nowhere, got"),
        (["loop", "--url", "nowhere"], "HOST:PORT of a server's gRPC endpoint, got 'nowhere'"),
        (
            ["selfplay", "--evaluator", "hash", "--metrics", "256.0.0.1:x"],
            "HOST:PORT of --metrics (or PORT",
        ),
        (["loop", "--metrics", "256.0.0.1:x"], "HOST:PORT of --metrics (or PORT"),
        (["selfplay", "--repository", "nowhere"], "nowhere/blobnet/config.pbtxt, got no file"),
        (["selfplay", "--evaluator", "local", "--repository", "nowhere"], "nowhere/blobnet/<version>/model.onnx"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_made(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("blobzero: expected ")
    assert says in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


LEAVES_OUT = """
import sys
from blobzero.cli import main
status = main(sys.argv[2:])
sys.exit(f"imported {found}" if (found := set(sys.argv[1].split(",")) & set(sys.modules)) else status)
"""


@pytest.mark.parametrize(
    ("slow", "arguments"),
    [
        ("tyro,rich,numpy,torch,grpc", ["--help"]),
        ("numpy,torch,grpc,pyarrow,matplotlib", ["models"]),
        ("torch,grpc,pyarrow", ["serve", "--help"]),
    ],
)
def test_a_verb_imports_what_only_it_needs(slow: str, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "model_repo" / "blobnet").mkdir(parents=True)
    command = [sys.executable, "-c", LEAVES_OUT, slow, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_explains_itself_in_80_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: blobzero {name} " in capsys.readouterr().out


def test_a_mistyped_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfpaly"]) == 2
    assert capsys.readouterr().err == "blobzero: expected a verb, got selfpaly; blobzero selfplay\n"
    assert main([]) == 2
    assert capsys.readouterr().err == "blobzero: expected a verb, got none; blobzero --help lists them\n"


def test_help_before_a_verb_is_that_verb_s_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help", "models"])
    assert end.value.code == 0
    assert "usage: blobzero models " in capsys.readouterr().out
    assert main(["--help", "selfpaly"]) == 2
    assert capsys.readouterr() == ("", "blobzero: expected a verb, got selfpaly; blobzero selfplay\n")
