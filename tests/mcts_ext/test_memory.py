# SPDX-License-Identifier: Apache-2.0
"""Memory: known before it is taken, and refused in one line where there is not so much."""

import subprocess
import sys
from pathlib import Path

import pytest

from blobzero.cli import main
from clients.arena.match import SearchPlayer, play
from clients.evaluator import UniformEvaluator
from mcts_ext import memory
from mcts_ext._testing import allocate_batch
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.errors import InvalidConfig
from mcts_ext.memory import available_memory, check_memory
from mcts_ext.pool import SelfPlayPool, memory_of_pool
from mcts_ext.rules import Round
from mcts_ext.search import Search, memory_of_search

HUGE = SearchConfig(determinizations=10_000, simulations=1_000_000)
FLAGS = ["--determinizations", "10000", "--simulations", "1000000"]

GROWTH = """
import os, sys
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.pool import SelfPlayPool, memory_of_pool
from mcts_ext.rules import Round
from mcts_ext.search import Search, memory_of_search
def size():
    return int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
deal, search = DealConfig(cards=(13,)), SearchConfig(**{settings})
settings = dict(n_games={n_games}, n_groups={n_groups})
before = size()
if {n_games}:
    pool = SelfPlayPool(range(10), seed=1, deal=deal, search=search, **settings)
    print(memory_of_pool(deal, search, **settings), size() - before)
else:
    table = Round.deal(4, 13, 0, 1, 1)
    one = Search(table, search, seed=1)
    print(memory_of_search(search, 13), size() - before)
"""


@pytest.mark.parametrize(
    ("settings", "n_games", "n_groups"),
    [
        ({"determinizations": 3, "simulations": 800}, 100, 3),
        ({"determinizations": 40, "simulations": 1, "leaves_per_tree": 64}, 100, 1),
        ({"determinizations": 1, "candidates": 2000, "simulations": 1}, 100, 2),
        ({"determinizations": 50, "simulations": 5000}, 0, 0),
    ],
    ids=["nodes", "leaves", "candidates", "one search"],
)
def test_the_estimate_is_what_is_taken(settings: dict[str, int], n_games: int, n_groups: int) -> None:
    """The growth of a fresh process's address space. The estimate holds a round's records for each game besides."""
    code = GROWTH.replace("{settings}", repr(settings)).replace("{n_games}", str(n_games))
    code = code.replace("{n_groups}", str(n_groups))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    estimate, grown = map(int, done.stdout.split())
    assert grown > 40 * 2**20
    assert 0.97 * grown - 2**21 < estimate < 1.03 * grown + n_games * 60 * 300 + 2**21


def test_what_does_not_fit_is_refused_before_it_is_taken() -> None:
    with pytest.raises(InvalidConfig, match=r"expected a pool to fit into [\d,.]+ GiB, .* need [\d,.]+ GiB"):
        SelfPlayPool([1], seed=1, deal=DealConfig(), search=HUGE, n_games=100_000)
    with pytest.raises(InvalidConfig, match=r"expected a search to fit into [\d,.]+ GiB"):
        Search(Round.deal(4, 5, 0, 1, 1), HUGE, seed=1)
    players = [SearchPlayer(name, HUGE, UniformEvaluator()) for name in "ab"]
    with pytest.raises(InvalidConfig, match=r"expected 1536 searches to fit into [\d,.]+ GiB"):
        next(play(players, DealConfig(), deals=1, seed=1))
    with pytest.raises(InvalidConfig, match="GiB"):
        SelfPlayPool([1], seed=1, deal=DealConfig(), search=SearchConfig(simulations=10**6), n_games=1_000_000)


@pytest.mark.parametrize(
    "words",
    [
        ["selfplay", "--games", "100000", *FLAGS, "--evaluator", "uniform"],
        ["match", "search-uniform", "search-uniform", *FLAGS],
        ["play", "--evaluator", "uniform", *FLAGS],
    ],
    ids=["selfplay", "match", "play"],
)
def test_a_command_refuses_in_one_line_with_the_figure(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "GiB" in said[0]
    assert "got settings that need" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_all_workers_count() -> None:
    limit = available_memory()[0]
    check_memory(limit // 3, of="it", processes=3)
    with pytest.raises(InvalidConfig, match="expected it to fit"):
        check_memory(limit // 3 + 2, of="it", processes=3)


def test_a_limit_of_the_cgroup_or_of_one_above_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_CGROUP", tmp_path / "own")
    assert available_memory()[1] == "the memory of this machine"
    (tmp_path / "own").write_text("0::/service/worker\n")
    (tmp_path / "service" / "worker").mkdir(parents=True)
    (tmp_path / "service" / "worker" / "memory.max").write_text("max\n")
    assert available_memory()[1] == "the memory of this machine"
    (tmp_path / "service" / "memory.max").write_text("300000000\n")
    assert available_memory() == (300_000_000, "the limit of its cgroup")
    (tmp_path / "memory.max").write_text("200000000\n")
    assert available_memory(4) == (200_000_000, "the limit of its cgroup")
    (tmp_path / "own").write_text("12:cpu:/a\n11:memory:/b\n")
    (tmp_path / "memory" / "b").mkdir(parents=True)
    (tmp_path / "memory" / "b" / "memory.limit_in_bytes").write_text("100000000\n")
    assert available_memory() == (100_000_000, "the limit of its cgroup")


LIMITED = """
import resource
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.errors import BlobError
from mcts_ext.pool import SelfPlayPool
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
try:
    SelfPlayPool([1], seed=1, deal=DealConfig(cards=(13,)), search=SearchConfig(simulations=5000), n_games=500)
except BlobError as error:
    print(type(error).__name__, error)
"""


def test_ulimit_counts() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("InvalidConfig expected a pool to fit into "), done.stdout
    assert "the remainder of ulimit -v" in done.stdout


def test_a_batch_of_more_rows_than_numbers_for_them_is_refused_at_once() -> None:
    allocate_batch(1)
    for n in (0, -1, 2**28 + 1, 2**29 + 1, 2**31, 2**40):
        with pytest.raises(InvalidConfig, match=r"expected a batch of 1\.\.268435456 rows"):
            allocate_batch(n)


def test_the_estimate_has_no_overflow() -> None:
    """The largest settings that are taken: in numbers of any size, by hand."""
    search = SearchConfig(determinizations=10_000, simulations=1_000_000, leaves_per_tree=256, candidates=10_000)
    found = memory_of_pool(DealConfig(cards=(13,)), search, n_games=1_000_000, n_groups=1)
    nodes = 1_000_000 * 10_000 * (1 + 1_000_001 * 14) * 32
    assert nodes < found < 1.01 * nodes
    assert memory_of_search(search, 10**30) == memory_of_search(search, 13)
