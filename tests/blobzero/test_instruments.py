# SPDX-License-Identifier: Apache-2.0
"""What a loop measures of its own self-play: scores, bids, and what its search never looks at."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from blobzero.loop.instruments import Exploration, exploration, play_figures
from clients.arena.searching import finish
from clients.evaluator import Evaluation, HashEvaluator, UniformEvaluator
from clients.selfplay.records import write_shard
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.contract import AT_BIDS, BID_PENDING
from mcts_ext.decode import decode
from mcts_ext.errors import InvalidConfig
from mcts_ext.observe import observation
from mcts_ext.pool import SelfPlayPool
from mcts_ext.records import Records
from mcts_ext.search import Search
from tests.support.evaluators import hashed, run_pool, run_search
from tests.support.positions import SHAPES, position

SEARCH = SearchConfig(determinizations=8, simulations=4, c_puct=1.0, q_scale=60.0, dirichlet_fraction=0.0)


class Stubborn(UniformEvaluator):
    """Values a seat by what it has bid, and is sure of the lowest action all the same."""

    def submit(self, observations: NDArray[np.uint8], *, tag: int) -> None:
        self._rows = observations.copy()
        super().submit(observations, tag=tag)

    def wait(self, timeout_s: float | None = None) -> tuple[int, Evaluation]:
        tag, found = super().wait(timeout_s)
        bids = self._rows[:, AT_BIDS : AT_BIDS + 8]
        values = np.where(bids < BID_PENDING, bids / 5.0, 0.5).astype(np.float32)
        logits = np.tile(-3 * np.arange(66, dtype=np.float32), (len(bids), 1))
        return tag, replace(found, logits=logits, values=values)


def recorded(shards: Path, *, deal: DealConfig, search: SearchConfig = SEARCH, rounds: int = 100) -> Records:
    shards.mkdir(parents=True)
    records = run_pool(SelfPlayPool(range(rounds), seed=1, deal=deal, search=search), hashed)
    write_shard(shards / "0.parquet", records, provenance={})
    return records


def test_scores_and_bids_are_those_of_the_rounds(tmp_path: Path) -> None:
    records = recorded(tmp_path / "shards", deal=DealConfig(players=(3, 5), cards=(2, 4)))
    scores, bids, made = [], Counter[int](), Counter[int]()
    for number in range(100):
        rows = np.flatnonzero(records.round == number)
        opening = decode(records.observation[rows[0]].tobytes())
        table, pending = opening.round(), records.action[rows].tolist()
        chosen = []
        while not table.is_over:
            legal = table.legal_actions()
            if table.is_bidding and len(legal) > 1:
                chosen.append((table.seat_to_act, pending[0]))
            table.apply(pending.pop(0) if len(legal) > 1 else legal[0])
        scores += table.scores()
        bids.update(bid for _, bid in chosen)
        made.update(bid for seat, bid in chosen if table.scores()[seat or 0])
    found = play_figures(tmp_path / "shards")
    assert found is not None
    assert json.loads(json.dumps(asdict(found)))["rounds"] == 100
    assert found.score == pytest.approx(np.mean(scores))
    assert {one.bid: one.share for one in found.bids} == pytest.approx({b: n / bids.total() for b, n in bids.items()})
    assert {one.bid: one.made for one in found.bids} == pytest.approx({b: made[b] / n for b, n in bids.items()})
    assert play_figures(tmp_path / "nowhere") is None


def test_a_search_that_skips_actions_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    """By PUCT with sharp priors much is never visited; with an even root nothing is."""
    shards = tmp_path / "shards"
    recorded(shards, deal=DealConfig(players=(4,), cards=(5,)))
    bids, cards = exploration(shards, Stubborn(), SEARCH, seed=1, n=100)
    assert (bids.kind, cards.kind) == ("bids", "cards")
    assert json.loads(json.dumps(asdict(bids))) == asdict(bids)
    assert bids.decisions == cards.decisions == 100
    assert bids.never_visited > 0.05
    assert bids.points_lost > 0.2
    assert len(bids.warnings()) == 2
    by_visits = replace(SEARCH, q_scale=0.0)  # its targets are its visits; those of an even root would be all equal
    assert exploration(shards, Stubborn(), by_visits, seed=1, n=100)[0].points_lost > 10
    even = replace(SEARCH, determinizations=6, simulations=6, even_root=True)
    for found in exploration(shards, Stubborn(), even, seed=1, n=100):
        assert found.never_visited == 0.0
        assert abs(found.points_lost) < 0.2
        assert found.warnings() == []
    assert exploration(tmp_path / "nowhere", HashEvaluator(), even, seed=1) == []


def test_figures_of_the_old_demo_warn() -> None:
    """What docs/experiments/exploration.md found in the last generation by 8 x 4 without an even root."""
    old = Exploration("bids", decisions=400, never_visited=0.22, points_lost=0.73, points_lost_error=0.1)
    assert [line.split(", got ")[1] for line in old.warnings()] == [
        "22.0%; set even_root = true",
        "0.73; set even_root = true",
    ]
    assert replace(old, never_visited=0.05, points_lost=0.2).warnings() == []


def test_a_position_comes_back_from_its_observation() -> None:
    random = Random(3)
    for n_players, n_cards in SHAPES:
        table = position(random, n_players, n_cards)
        row = observation(table)
        known = decode(row)
        if not known.others:  # the last card of a round, or nobody else holds one
            continue
        again = known.round()
        assert again.seat_to_act == 0
        assert observation(again) == row
        assert again.legal_actions() == table.legal_actions()
    with pytest.raises(InvalidConfig, match="expected the hands of 4 seats, got 1"):
        decode(observation(position(random, 4, 5, n_moves=0), with_others=False)).round()


def test_an_even_root_visits_every_action_of_any_hand() -> None:
    random = Random(4)
    for n_cards in (5, 13):
        table = position(random, 4, n_cards, n_moves=0)
        config = SearchConfig(determinizations=2, simulations=3, even_root=True, q_scale=10.0)
        visits = run_search(Search(table, config, seed=1), hashed)
        assert set(visits.values()) == {2}
        assert len(visits) == n_cards + 1


def test_without_simulations_the_policy_is_the_networks() -> None:
    table = position(Random(5), 4, 5, n_moves=0)
    config = SearchConfig(determinizations=1, simulations=0, dirichlet_fraction=0.0)
    search = Search(table, config, seed=1)
    run_search(search, hashed)
    row = np.frombuffer(observation(search.deals()[0]), np.uint8)[None]
    odds = np.exp(hashed(row)[0][0, table.legal_actions()].astype(float))
    assert list(search.policy().values()) == pytest.approx((odds / odds.sum()).tolist(), rel=1e-5)


def test_searches_in_common_batches_are_those_alone() -> None:
    random = Random(6)
    tables = [position(random, 4, 5, n_moves=i % 6) for i in range(200)]
    together = [Search(table, SEARCH, seed=i) for i, table in enumerate(tables)]
    asked = finish(HashEvaluator(), together)
    for i, (table, search) in enumerate(zip(tables, together, strict=True)):
        alone = Search(table, SEARCH, seed=i)
        assert run_search(alone, hashed) == search.visits()
        assert asked[search] <= alone.n_evaluations
    assert finish(UniformEvaluator(), together) == dict.fromkeys(together, 0)
