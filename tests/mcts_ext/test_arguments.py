# SPDX-License-Identifier: Apache-2.0
"""Every public name of the engine, called with what it does not expect: an exception, never a crash or a silent yes."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import pytest

from mcts_ext._bench import FreeSearch, random_playouts
from mcts_ext._testing import determinize_many, dirichlet_shares
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.deals import games_for
from mcts_ext.determinize import determinized
from mcts_ext.errors import BlobError, IllegalAction, InvalidConfig, InvalidDeal
from mcts_ext.observe import observation
from mcts_ext.pool import MOST_POINTS, SelfPlayPool
from mcts_ext.rules import Round
from mcts_ext.search import Search
from mcts_ext.tables import Tables
from tests.support.evaluators import hashed, run_pool, run_search
from tests.support.positions import playout, position

SMALL = SearchConfig(determinizations=2, simulations=3)
REFUSALS = (BlobError, TypeError, ValueError, OverflowError, AttributeError, DeprecationWarning)
"""What a caller's mistake may raise."""

JUNK: list[Any] = [
    None, -1, 0, 1, 3, 255, 256, 2**31, -(2**31), 2**63, -(2**63) - 1, 2**64, 2**200, 0.5, -0.0, float("nan"),
    float("inf"), 1e300, True, "1", b"1", "", [], [1], [[1]], (1, 2), {}, {1: 2}, object(), Round, np.int64(-1),
    np.uint8(255), np.float32(2.0), np.zeros(3), np.zeros((2, 66), np.float32), np.zeros((2, 8), np.float32),
    np.zeros((2, 66)), np.arange(4)[::2], np.zeros((0, 66), np.float32), iter([1]), range(3), SMALL, DealConfig(),
]  # fmt: skip


def table() -> Round:
    return Round.deal(4, 5, 0, 1, 3)


def blank() -> Round:
    """A round that was never dealt."""
    return Round.__new__(Round)


def finished() -> Round:
    done = table()
    while not done.is_over:
        done.apply(done.legal_actions()[0])
    return done


@pytest.mark.parametrize("seat", [-1, 4, 8, 255, 10**6, -(2**31)])
def test_a_seat_that_is_not_there_is_refused(seat: int) -> None:
    for draw in (
        lambda: determinized(table(), seat, seed=1),
        lambda: determinized(table(), seat, seed=1, constructed=True),
        lambda: determinized(blank(), seat, seed=1),
        lambda: determinize_many(table(), seat, 3, seed=1),
    ):
        with pytest.raises(InvalidConfig, match="expected a seat in 0"):
            draw()


def pool(**settings: Any) -> SelfPlayPool:
    given = {"rounds": range(3), "seed": 1, "deal": DealConfig(), "search": SMALL, "n_games": 2, **settings}
    return SelfPlayPool(given.pop("rounds"), **given)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rounds": [0.5, 1.0]}, "expected rounds"),
        ({"rounds": [float("nan")]}, "expected rounds"),
        ({"rounds": [[1, 2]]}, "expected rounds"),
        ({"rounds": 3}, "expected rounds"),
        ({"rounds": [2**63]}, "expected rounds"),
        ({"rounds": [2**64]}, "expected rounds"),
        ({"rounds": ["1"]}, "expected rounds"),
        ({"rounds": [True]}, "expected rounds"),
        ({"totals": [[1] * 8]}, "expected totals"),
        ({"totals": [[-1] * 8] * 3}, "expected totals"),
        ({"totals": [[70_000] * 8] * 3}, "expected totals"),
        ({"totals": [[MOST_POINTS + 1] * 8] * 3}, "expected totals"),
        ({"totals": np.zeros((3, 8))}, "expected totals"),
        ({"totals": np.zeros((3, 7), int)}, "expected totals"),
        ({"n_games": 0}, "expected 1..1000000 games"),
        ({"n_games": 1_000_001}, "expected 1..1000000 games"),
        ({"n_groups": 0}, "expected at least 1 group"),
    ],
)
def test_settings_of_a_pool_out_of_range_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        pool(**settings)


def test_a_total_may_be_as_large_as_a_game_leaves_room_for() -> None:
    deal = DealConfig(players=(3,), cards=(2,), unit="game")
    records = run_pool(pool(rounds=[0], totals=[[MOST_POINTS] * 3 + [0] * 5], deal=deal), hashed)
    totals = records.observation[:, 28:34].copy().view(np.uint16)
    assert totals.min() == MOST_POINTS < totals.max()


@pytest.mark.parametrize("config", [None, {}, "SearchConfig", DealConfig()])
def test_settings_of_another_type_are_refused(config: Any) -> None:
    for make in (lambda: Search(table(), config, seed=1), lambda: pool(search=config)):
        with pytest.raises(TypeError, match="expected a SearchConfig"):
            make()
    with pytest.raises(TypeError, match="expected a DealConfig"):
        pool(deal=config if not isinstance(config, DealConfig) else SMALL)


def test_more_rounds_of_games_than_can_be_counted_are_refused_at_once() -> None:
    with pytest.raises(InvalidConfig, match="expected at most 1000000000 rounds"):
        games_for(10**15, seed=1, deal=DealConfig(unit="game"))
    assert games_for(-5, seed=1, deal=DealConfig(unit="game")) == (0, 0)


def test_a_round_that_is_refused_stays_as_it_was() -> None:
    once = table()
    before = str(once)
    for hands in ([[1, 2], [3, 4], [5, 5]], [[1, 2], [3, 4], [5, 99]], [[1], [2], []]):
        with pytest.raises(InvalidDeal):
            once.__init__(hands, dealer=0)  # type: ignore[misc]
        assert str(once) == before


class Growing(list[list[int]]):
    """More hands than it says it has."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[card] for card in range(52)])


def test_hands_are_counted_as_they_come() -> None:
    with pytest.raises(InvalidDeal, match="3 to 8 players, got 52"):
        Round(Growing([[0], [1], [2]]), dealer=0)


def test_a_round_never_dealt_is_over() -> None:
    empty = blank()
    assert empty.is_over
    assert (empty.legal_actions(), empty.hands, empty.scores(), empty.tricks) == ([], [], [], [])
    with pytest.raises(IllegalAction):
        empty.apply(0)
    for ask in (lambda: observation(empty), lambda: Search(empty, SMALL, seed=1)):
        with pytest.raises(ValueError, match="finished"):
            ask()


def bench(**settings: Any) -> FreeSearch:
    given = {
        "deals": [table()], "n_trees": 1, "simulations": 5, "seed": 1, "random": True, "c_puct": 1.0,
        "fpu_reduction": 0.0, **settings,
    }  # fmt: skip
    return FreeSearch(given.pop("deals"), **given)


@pytest.mark.parametrize(
    "settings",
    [{"n_trees": 0}, {"n_trees": -1}, {"simulations": 0}, {"simulations": -5}, {"deals": []}, {"deals": [finished()]}],
)
def test_a_benchmark_of_nothing_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match="expected"):
        bench(**settings)


@pytest.mark.parametrize("numbers", [(None, None), (np.zeros((3, 66), np.float32), None)])
def test_an_answer_of_none_is_refused(numbers: tuple[Any, Any]) -> None:
    search, games = Search(table(), SMALL, seed=1), pool()
    search.collect(), games.collect(0)
    for hand_in in (lambda: search.apply(*numbers), lambda: games.apply(0, *numbers)):
        with pytest.raises(TypeError):
            hand_in()
    run_search(search, hashed)
    run_pool(games, hashed)


def doors() -> list[tuple[Callable[..., Any], int, tuple[str, ...]]]:
    """Public callables, how many positional arguments they take and the names of the others."""
    search, games = Search(table(), SMALL, seed=1), pool()
    search.collect(), games.collect(0)
    tables = Tables([table(), finished(), blank()], range(3))
    return [
        (Round, 1, ("dealer", "trump", "totals", "game_round", "start_cards")),
        (Round.deal, 5, ()),
        (table().apply, 1, ()),
        (blank().apply, 1, ()),
        (determinized, 2, ("seed", "stream", "constructed")),
        (observation, 1, ("with_others",)),
        (Search, 2, ("seed",)),
        (search.apply, 2, ()),
        (SelfPlayPool, 1, ("totals", "seed", "deal", "search", "n_games", "n_groups")),
        (games.collect, 1, ()),
        (games.observations, 1, ()),
        (games.apply, 3, ("model_version",)),
        (games_for, 1, ("seed", "deal")),
        (Tables, 2, ()),
        (tables.observe, 1, ("drawn",)),
        (tables.apply, 2, ()),
        (tables.branches, 1, ()),
        (Tables.joined, 1, ()),
        (random_playouts, 2, ("seed",)),
        (determinize_many, 3, ("seed",)),
        (dirichlet_shares, 2, ("alpha", "k")),
        (bench, 0, ("deals", "n_trees", "simulations", "seed", "random", "c_puct", "fpu_reduction")),
    ]


SOUND: dict[str, list[Any]] = {
    "dealer": [0, 2], "trump": [None, 3], "totals": [None, [0, 0, 0]], "game_round": [0], "start_cards": [0],
    "seed": [1], "stream": [0], "constructed": [True], "with_others": [False], "deal": [DealConfig()],
    "search": [SMALL], "n_games": [2], "n_groups": [1], "model_version": [1], "alpha": [0.5],
    "k": [3], "deals": [[table()]], "n_trees": [2], "simulations": [3], "random": [True], "c_puct": [1.0],
    "fpu_reduction": [0.1], "drawn": [True],
}  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_junk_is_refused_or_harmless(seed: int) -> None:
    """Mostly sound arguments and one or two that are not; sizes stay such that what is taken is done soon."""
    random = Random(seed)
    n_refused = 0
    for _ in range(3000):
        call, n, names = random.choice(doors() if random.random() < 0.02 else DOORS)
        firsts = [table(), position(random, 3, 4), [[1], [2], [3]], 0, 3, [5], np.array([0]), SMALL]
        positional = [random.choice(firsts if random.random() < 0.7 else JUNK) for _ in range(n)]
        named = {k: random.choice(SOUND[k] if random.random() < 0.8 else JUNK) for k in names if random.random() < 0.9}
        if any(isinstance(x, int) and 10**5 < abs(x) < 2**40 for x in [*positional, *named.values()]):
            continue  # a size that is allowed, and long
        try:
            made = call(*positional, **named)
        except REFUSALS:
            n_refused += 1
            continue
        if isinstance(made, Round):
            assert sum(1 for _ in playout(made, random)) <= 8 * 14
        elif isinstance(made, Search):
            run_search(made, hashed)
        elif isinstance(made, SelfPlayPool) and made.n_unfinished < 1000:
            assert np.isfinite(run_pool(made, hashed).policy).all()
        elif isinstance(made, FreeSearch):
            made.run(2)
    assert n_refused > 500


DOORS = doors()
