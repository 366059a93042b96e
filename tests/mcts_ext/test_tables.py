# SPDX-License-Identifier: Apache-2.0
"""Tables in lockstep play as rounds do, one at a time; what a seat is shown tells nothing of the hidden hands."""

from random import Random

import numpy as np
import pytest

from mcts_ext.contract import N_SEATS
from mcts_ext.determinize import determinized
from mcts_ext.errors import IllegalAction, InvalidConfig
from mcts_ext.legal import legal_actions
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from mcts_ext.tables import Tables
from tests.support.positions import SHAPES, position


def positions(n: int, *, seed: int) -> list[Round]:
    random = Random(seed)
    return [position(random, *random.choice(SHAPES)) for _ in range(n)]


def skip_forced(table: Round) -> Round:
    while len(legal := table.legal_actions()) == 1:
        table.apply(legal[0])
    return table


def n_moves(table: Round) -> int:
    return sum(bid is not None for bid in table.bids) + sum(map(len, table.tricks))


def test_tables_play_as_single_rounds_do() -> None:
    random, rounds = Random(1), positions(200, seed=1)
    tables, twins = Tables(rounds, range(200)), [skip_forced(one.copy()) for one in rounds]
    n_steps = 0
    while True:
        acting = tables.seats_to_act()
        assert acting.tolist() == [-1 if one.is_over else one.seat_to_act for one in twins]
        waiting = np.flatnonzero(acting >= 0)
        if not len(waiting):
            break
        rows, drawn = tables.observe(waiting, drawn=False), tables.observe(waiting, drawn=True)
        for i, row, other, legal in zip(waiting.tolist(), rows, drawn, legal_actions(drawn), strict=True):
            twin, seat = twins[i], twins[i].seat_to_act
            assert seat is not None
            assert row.tobytes() == observation(twin, with_others=False)
            assert other.tobytes() == observation(determinized(twin, seat, seed=i, stream=n_moves(twin)))
            assert np.flatnonzero(legal).tolist() == twin.legal_actions()
        chosen = np.array([random.choice(twins[i].legal_actions()) for i in waiting.tolist()])
        tables.apply(waiting, chosen)
        for i, action in zip(waiting.tolist(), chosen.tolist(), strict=True):
            twins[i].apply(action)
            skip_forced(twins[i])
        n_steps += 1
    assert n_steps > 30
    points = tables.scores()
    assert points.shape == (200, N_SEATS)
    for found, twin in zip(points.tolist(), twins, strict=True):
        assert found == twin.scores() + [0] * (N_SEATS - twin.n_players)
    assert all(one.scores() != [] for one in twins)
    assert not any(one.is_over for one in rounds)  # the rounds given are copied


def test_branches_are_the_positions_after_every_legal_action() -> None:
    rounds = [one for one in positions(60, seed=2) if not skip_forced(one.copy()).is_over]
    tables = Tables(rounds, range(len(rounds)))
    some = np.arange(0, len(rounds), 2)
    branches, parents, actions = tables.branches(some)
    wanted = [(k, action) for k, i in enumerate(some) for action in skip_forced(rounds[i].copy()).legal_actions()]
    assert list(zip(parents.tolist(), actions.tolist(), strict=True)) == wanted
    assert len(branches) == len(wanted) > 2 * len(some)
    acting = branches.seats_to_act()
    for branch, (k, action) in enumerate(wanted):
        twin = skip_forced(rounds[some[k]].copy())
        twin.apply(action)
        skip_forced(twin)
        assert acting[branch] == (-1 if twin.is_over else twin.seat_to_act)
        if not twin.is_over:
            assert branches.observe(np.array([branch]), drawn=False)[0].tobytes() == observation(
                twin, with_others=False
            )
    joined = Tables.joined([branches, tables])
    assert joined.seats_to_act().tolist() == [*acting, *tables.seats_to_act()]
    both = np.flatnonzero(joined.seats_to_act() >= 0)
    own, others = both[both < len(wanted)], both[both >= len(wanted)]
    rows = np.concatenate([branches.observe(own, drawn=True), tables.observe(others - len(wanted), drawn=True)])
    assert (joined.observe(both, drawn=True) == rows).all()
    assert tables.seats_to_act().tolist() == Tables(rounds, range(len(rounds))).seats_to_act().tolist()


def test_what_a_seat_is_shown_tells_nothing_of_the_hidden_hands() -> None:
    """The other hands, and the cards not dealt, are permuted; moves and seeds stay."""
    random = Random(3)
    for _ in range(50):
        hands = random.sample(range(52), 20)
        tables = []
        for _ in range(2):
            hidden = [card for card in range(52) if card not in hands[:5]]
            random.shuffle(hidden)
            dealt = Round([hidden[:5], hands[:5], hidden[5:10], hidden[10:15]], dealer=3, trump=1)
            dealt.apply(2)
            tables.append(Tables([dealt], [7]))
        for drawn in (False, True):
            one, other = (table.observe(np.array([0]), drawn=drawn) for table in tables)
            assert one.tobytes() == other.tobytes()


def test_mistakes_are_refused() -> None:
    table = Round.deal(4, 5, 0, 1, 3)
    tables = Tables([table], [1])
    with pytest.raises(InvalidConfig, match="expected 1 seeds"):
        Tables([table], [1, 2])
    with pytest.raises(TypeError, match="expected a Round"):
        Tables([None], [1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="expected Tables"):
        Tables.joined([tables, table])  # type: ignore[list-item]
    for number in (-1, 1):
        with pytest.raises(InvalidConfig, match=r"expected tables in 0\.\.0"):
            tables.observe(np.array([number]), drawn=False)
    with pytest.raises(InvalidConfig, match="expected 1 actions"):
        tables.apply(np.array([0]), np.array([1, 2]))
    for action in (-1, 6, 14, 66, 2**40):
        with pytest.raises(IllegalAction, match="expected one of \\[0, 1, 2, 3, 4, 5\\]"):
            tables.apply(np.array([0]), np.array([action]))
    with pytest.raises(ValueError, match="expected finished rounds"):
        tables.scores()
