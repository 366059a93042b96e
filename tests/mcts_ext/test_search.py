# SPDX-License-Identifier: Apache-2.0
"""Search of one decision: the right moves, the same as a slow twin, blind to hidden cards and to how it is batched.

Without root noise a search draws nothing but its determinizations, which it shows (`deals`): so what a search with one
determinization looked at is known.
"""

import json
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from mcts_ext.config import SearchConfig
from mcts_ext.decode import decode
from mcts_ext.determinize import determinized
from mcts_ext.errors import BlobError, InvalidEvaluation
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from mcts_ext.search import Search
from tests.golden.make_search import GOLDEN, searches
from tests.reference import puct
from tests.support.evaluators import Answer, Evaluate, hashed, one_by_one, run_search, uniform
from tests.support.positions import SHAPES, consistent_deals, position, unseen

OPEN = SearchConfig(determinizations=1, simulations=100, dirichlet_fraction=0.0)
"""One known determinization, no noise."""


def choice_position(random: Random, *shape: int, n_moves: int | None = None) -> Round:
    """A position that leaves the seat to act a choice."""
    while True:
        table = position(random, *(shape or random.choice(SHAPES)), n_moves=n_moves)
        if len(table.legal_actions()) > 1:
            return table


def seat_to_act(table: Round) -> int:
    assert table.seat_to_act is not None
    return table.seat_to_act


@pytest.mark.parametrize("leaves", [1, 3, 30])
def test_every_visit_is_where_the_slow_twin_has_it(leaves: int) -> None:
    random = Random(leaves)
    for seed in range(60):
        table = choice_position(random)
        config = SearchConfig(
            determinizations=1,
            simulations=random.choice([1, 2, 30, 90]),
            leaves_per_tree=leaves,
            dirichlet_fraction=0.0,
            c_puct=random.choice([0.5, 1.5, 4.0]),
            fpu_reduction=random.choice([0.0, 0.1, 0.6]),
            even_root=random.choice([False, True]),
        )
        search = Search(table, config, seed=seed)
        root = puct.search(search.deals()[0], config, hashed)
        assert run_search(search, hashed) == {action: child.n_visits for action, child in root.children.items()}
        means = {a: child.value_sum / child.n_visits for a, child in root.children.items() if child.n_visits}
        assert search.values() == pytest.approx(means, abs=1e-5)


def test_golden_searches() -> None:
    """Remade by `python -m tests.golden.make_search`."""
    assert searches() == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("evaluate", [uniform, hashed])
@pytest.mark.parametrize("config", [SearchConfig(), SearchConfig(leaves_per_tree=4), SearchConfig(simulations=1)])
def test_visits_go_to_the_legal_actions_and_add_up(evaluate: Evaluate, config: SearchConfig) -> None:
    random = Random(5)
    for seed in range(100):
        table = choice_position(random)
        visits = run_search(Search(table, config, seed=seed), evaluate)
        assert list(visits) == table.legal_actions()
        assert sum(visits.values()) == config.determinizations * config.simulations


def test_the_same_seed_repeats_and_another_does_not() -> None:
    table = choice_position(Random(6), 4, 8, n_moves=6)
    once, again, other = (run_search(Search(table, SearchConfig(), seed=seed), hashed) for seed in (3, 3, 4))
    assert once == again != other


def single_deal_position() -> Round:
    """A position with a choice where the seat to act can tell where every card is."""
    random = Random(8)
    while True:
        table = choice_position(random, 4, 13, n_moves=random.randrange(38, 50))
        known = unseen(table, seat_to_act(table))
        if known.n_bound > 1 and consistent_deals(known, 1) is not None:
            return table


def test_the_seed_decides_the_deals_and_the_noise_and_nothing_more() -> None:
    table = single_deal_position()
    quiet = SearchConfig(dirichlet_fraction=0.0, simulations=12)
    noisy = SearchConfig(dirichlet_fraction=0.5, simulations=12)
    assert len({str(run_search(Search(table, quiet, seed=seed), hashed)) for seed in range(10)}) == 1
    assert len({str(run_search(Search(table, noisy, seed=seed), hashed)) for seed in range(10)}) > 1


def test_root_noise_alone_is_even_handed_and_drowns_the_priors() -> None:
    """With nothing but noise at the root, the one simulation goes to any action alike."""
    table = choice_position(Random(9), 4, 5, n_moves=0)
    config = SearchConfig(determinizations=1, simulations=1, dirichlet_fraction=1.0, dirichlet_alpha=0.5)

    def tilted(observations: NDArray[np.uint8]) -> Answer:
        logits, values = uniform(observations)
        logits[:, 0] = 20.0
        return logits, values

    first: Counter[int] = Counter()
    for seed in range(1200):
        visits = run_search(Search(table, config, seed=seed), tilted)
        assert visits == run_search(Search(table, config, seed=seed), uniform)
        first.update(action for action, n in visits.items() if n)
    assert chisquare([first[action] for action in table.legal_actions()]).pvalue > 1e-4


def test_logits_of_illegal_actions_do_not_matter() -> None:
    random = Random(10)
    for seed in range(40):
        table = choice_position(random)
        legal = table.legal_actions()

        def loud(observations: NDArray[np.uint8], legal: list[int] = legal) -> Answer:
            logits, values = hashed(observations)
            logits[0, [action for action in range(66) if action not in legal]] = 1e30
            return logits, values

        config = SearchConfig(determinizations=1, simulations=1, dirichlet_fraction=0.0)
        visits = run_search(Search(table, config, seed=seed), loud)
        search = Search(table, config, seed=seed)
        search.collect()
        logits = hashed(search.observations)[0][0]
        assert max(visits, key=visits.__getitem__) == legal[int(logits[legal].argmax())]


@pytest.mark.parametrize("leaves", [1, 4, 30])
def test_batched_equals_one_by_one(leaves: int) -> None:
    random = Random(leaves)
    for seed in range(30):
        table = choice_position(random)
        config = SearchConfig(determinizations=4, leaves_per_tree=leaves)
        together, alone = Search(table, config, seed=seed), Search(table, config, seed=seed)
        assert run_search(together, hashed) == run_search(alone, one_by_one(hashed))
        assert together.values() == alone.values()


@pytest.mark.parametrize("config", [SearchConfig(), SearchConfig(determinizations=6, leaves_per_tree=5)])
def test_hidden_cards_change_nothing(config: SearchConfig) -> None:
    """The same seat, the same knowledge, other cards in the hidden hands: it asks the same rows, visits the same."""
    random = Random(12)
    n_differing = 0
    for seed in range(60):
        table = choice_position(random)
        twin = determinized(table, seat_to_act(table), seed=100 + seed)
        n_differing += twin.hands != table.hands
        asked: list[list[bytes]] = []
        for dealt in (table, twin):
            rows: list[bytes] = []
            search = Search(dealt, config, seed=seed)
            while search.collect():
                rows.append(search.observations.tobytes())
                search.apply(*hashed(search.observations))
            asked.append([*rows, repr(search.visits()).encode()])
        assert asked[0] == asked[1]
    assert n_differing > 40


def n_legal(row: bytes) -> int:
    """Legal actions of the seat to act, worked out from an observation alone."""
    known = decode(row)
    if None in known.bids:
        is_last = known.bids.count(None) == 1
        sum_of_others = sum(bid for bid in known.bids if bid is not None)
        return known.n_cards + 1 - (is_last and sum_of_others <= known.n_cards)
    if known.tricks and len(known.tricks[-1]) < known.n_players:
        following = [card for card in known.hand if card // 13 == known.tricks[-1][0][1] // 13]
        return len(following or known.hand)
    return len(known.hand)


def test_forced_moves_cost_no_evaluation() -> None:
    random = Random(13)
    n_rows = 0
    for seed in range(60):
        search = Search(choice_position(random), SearchConfig(leaves_per_tree=2), seed=seed)
        while search.collect():
            n_rows += len(search.observations)
            assert all(n_legal(row.tobytes()) > 1 for row in search.observations)
            search.apply(*hashed(search.observations))
    assert n_rows > 1000


def last_choice() -> Round:
    """The last seat's bid before a single trick: whatever it bids, all that follows is forced."""
    table = Round([[12], [0], [13], [14]], dealer=2, trump=None)
    for bid in (1, 0, 1):
        table.apply(bid)
    return table


def test_a_tree_of_ends_asks_for_its_root_alone_and_is_exact() -> None:
    """A row for each deal; a bid's value is its exact score over the deals drawn."""
    table = last_choice()
    assert table.legal_actions() == [0, 1]
    n_both = 0
    for seed in range(20):
        search = Search(table, OPEN, seed=seed)
        assert [search.collect(), len(search.observations)] == [1, 1]
        search.apply(*hashed(search.observations))
        assert search.collect() == 0
        exact = {}
        for bid in table.legal_actions():
            after = search.deals()[0]
            after.apply(bid)
            while not after.is_over:
                after.apply(after.legal_actions()[0])
            exact[bid] = after.scores()[seat_to_act(table)] / 11
        found = search.values()
        n_both += len(found) == 2  # a prior near 0 may leave one unvisited
        assert found == pytest.approx({bid: exact[bid] for bid in found})
    assert n_both > 15

    many = Search(table, SearchConfig(determinizations=50), seed=0)
    assert 40 < many.collect() <= 50  # equal deals share a row
    assert many.n_evaluations == 50


def test_thirty_leaves_of_thirty_simulations_never_leave_the_root() -> None:
    """One wave holds the whole search, so the priors are all it returns."""
    table = choice_position(Random(14), 4, 5, n_moves=0)
    config = SearchConfig(determinizations=1, simulations=30, leaves_per_tree=30, dirichlet_fraction=0.0)
    search = Search(table, config, seed=1)
    assert search.collect() == 1
    search.apply(*uniform(search.observations))
    assert 1 <= search.collect() <= 6
    search.apply(*uniform(search.observations))
    assert search.collect() == 0
    search.check()
    assert set(search.visits().values()) == {5}


@pytest.mark.parametrize("leaves", [2, 8, 256])
def test_collisions_in_a_small_tree_are_all_backed_up(leaves: int) -> None:
    """Far more leaves at once than the tree has: the same leaf is taken again and again in one wave."""
    random = Random(15)
    for seed in range(20):
        table = choice_position(random, 3, 3, n_moves=random.randrange(6, 9))
        config = SearchConfig(determinizations=2, simulations=500, leaves_per_tree=leaves)
        assert sum(run_search(Search(table, config, seed=seed), hashed).values()) == 1000


def test_check_notices_leaves_in_flight() -> None:
    search = Search(choice_position(Random(16), 4, 5, n_moves=0), OPEN, seed=0)
    assert search.collect() == search.collect() == 1
    with pytest.raises(ValueError, match="1 leaves are still waiting"):
        search.check()
    search.apply(*hashed(search.observations))
    search.check()


@pytest.mark.parametrize("config", [OPEN, SearchConfig(q_scale=20.0, candidates=9)])
def test_a_forced_move_is_answered_at_once_and_a_finished_round_refused(config: SearchConfig) -> None:
    forced = Round([[12], [0], [13]], dealer=2, trump=None)
    for bid in (0, 0, 0):
        forced.apply(bid)
    search = Search(forced, config, seed=0)
    assert (search.collect(), search.n_evaluations, search.observations.shape) == (0, 0, (0, 96))
    search.apply(np.zeros((0, 66), np.float32), np.zeros((0, 8), np.float32))
    search.check()
    assert (search.policy(), search.visits(), search.values(), search.deals()) == ({26: 1.0}, {26: 0}, {}, [])
    while not forced.is_over:
        forced.apply(forced.legal_actions()[0])
    with pytest.raises(ValueError, match="expected a round in progress, got a finished one"):
        Search(forced, config, seed=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_an_unsound_answer_is_refused_and_a_sound_one_goes_on(bad: float, which: int) -> None:
    table = choice_position(Random(17), 4, 5, n_moves=0)
    search, undisturbed = (Search(table, SearchConfig(leaves_per_tree=3), seed=0) for _ in range(2))
    n_refused = 0
    while search.collect():
        rows = search.observations.copy()
        answer = hashed(rows)
        answer[which][-1] = bad
        with pytest.raises(InvalidEvaluation, match="finite"):
            search.apply(*answer)
        assert np.array_equal(search.observations, rows)
        search.apply(*hashed(rows))
        n_refused += 1
    search.check()
    assert n_refused > 5
    assert search.visits() == run_search(undisturbed, hashed)


@pytest.mark.parametrize(
    ("logits", "values"),
    [((2, 66), (2, 8)), ((1, 65), (1, 8)), ((1, 66), (1, 7)), ((1, 66), (2, 8)), ((0, 66), (0, 8))],
)
def test_an_answer_of_another_shape_is_refused(logits: tuple[int, int], values: tuple[int, int]) -> None:
    search = Search(choice_position(Random(18), 4, 5, n_moves=0), OPEN, seed=0)
    assert search.collect() == 1
    with pytest.raises(BlobError, match=r"expected logits \[1, 66\] and values \[1, 8\]"):
        search.apply(np.zeros(logits, dtype=np.float32), np.zeros(values, dtype=np.float32))
    search.apply(*hashed(search.observations))


def test_the_improved_policy_is_the_prior_tilted_by_the_values() -> None:
    """softmax(log prior + q_scale * Q), an unvisited action taking the mean of the others weighted by their priors."""
    random = Random(21)
    n_unvisited = 0
    for seed in range(60):
        table = choice_position(random)
        scale = random.choice([1.0, 20.0, 100.0])
        config = SearchConfig(determinizations=1, simulations=random.choice([2, 30]), q_scale=scale)
        search = Search(table, replace(config, dirichlet_fraction=0.0), seed=seed)
        run_search(search, hashed)
        logits = hashed(np.frombuffer(observation(search.deals()[0]), np.uint8)[None])[0]
        legal, values = table.legal_actions(), search.values()
        prior = np.exp(logits[0, legal].astype(float))
        prior /= prior.sum()
        seen = [i for i, action in enumerate(legal) if action in values]
        mean = sum(prior[i] * values[legal[i]] for i in seen) / sum(prior[i] for i in seen)
        n_unvisited += len(legal) - len(seen)
        odds = prior * np.exp(scale * (np.array([values.get(action, mean) for action in legal]) - mean))
        assert search.policy() == pytest.approx(dict(zip(legal, odds / odds.sum(), strict=True)), rel=1e-3, abs=1e-6)
    assert n_unvisited > 10


def test_without_a_scale_the_policy_is_the_shares_of_visits() -> None:
    search = Search(choice_position(Random(22)), SearchConfig(), seed=1)
    visits = run_search(search, hashed)
    assert search.policy() == pytest.approx({action: n / 90 for action, n in visits.items()})
