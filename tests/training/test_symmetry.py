# SPDX-License-Identifier: Apache-2.0
"""The rules know no suit by name, and neither does the network: with renamed suits it answers the same, renamed."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from export.positions import sample_rows
from mcts_ext.decode import InformationSet, decode
from mcts_ext.legal import legal_actions
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from tests.support.positions import SHAPES, choose, deal
from tests.support.renamings import RENAMINGS, rename_suits
from training.network import create_network


def rename_card(card: int, suits: list[int]) -> int:
    return 13 * suits[card // 13] + card % 13


def rename_action(action: int, suits: list[int]) -> int:
    return action if action < 14 else 14 + rename_card(action - 14, suits)


def rename_round(table: Round, suits: list[int], actions: list[int]) -> Round:
    """The same round, dealt and played with the other suits."""
    twin = Round(
        [[rename_card(card, suits) for card in hand] for hand in table.hands],
        dealer=table.dealer,
        trump=None if table.trump is None else suits[table.trump],
        totals=table.totals,
        game_round=table.game_round,
        start_cards=table.start_cards,
    )
    for action in actions:
        twin.apply(rename_action(action, suits))
    return twin


def rename_known(known: InformationSet, suits: list[int]) -> InformationSet:
    return replace(
        known,
        trump=None if known.trump is None else suits[known.trump],
        voids=tuple(tuple(sorted(suits[suit] for suit in seat)) for seat in known.voids),
        hand=tuple(sorted(rename_card(card, suits) for card in known.hand)),
        others=tuple(tuple(sorted(rename_card(card, suits) for card in hand)) for hand in known.others),
        tricks=tuple(tuple((seat, rename_card(card, suits)) for seat, card in trick) for trick in known.tricks),
    )


def test_there_are_24_and_the_first_changes_nothing() -> None:
    assert sorted(map(tuple, RENAMINGS)) == sorted({tuple(row) for row in RENAMINGS})
    assert len(RENAMINGS) == 24
    assert RENAMINGS[0].tolist() == [0, 1, 2, 3]


def test_a_renamed_row_is_the_row_of_the_renamed_round() -> None:
    random = Random(1)
    rows, wanted, numbers = [], [], []
    n_voids = 0
    for shape in SHAPES:
        start = deal(random, *shape)
        table, actions = start.copy(), []
        while not table.is_over:
            number = random.randrange(24)
            suits = RENAMINGS[number].tolist()
            rows.append(observation(table))
            wanted.append(observation(rename_round(start, suits, actions)))
            numbers.append(number)
            n_voids += sum(map(len, table.voids))
            actions.append(choose(table, random))
            table.apply(actions[-1])
    assert n_voids > 1000
    assert set(numbers) == set(range(24))
    before = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 96)
    after, _ = rename_suits(before, np.zeros((len(rows), 66), np.float32), np.array(numbers))
    assert [row.tobytes() for row in after] == wanted
    for row, renamed, number in zip(rows, after, numbers, strict=True):
        assert decode(renamed.tobytes()) == rename_known(decode(row), RENAMINGS[number].tolist())


@pytest.mark.parametrize("number", [0, 1, 9, 23])
def test_the_policy_follows_the_cards_and_bids_stay(number: int) -> None:
    policy = np.arange(66, dtype=np.float32)[None]
    _, renamed = rename_suits(np.zeros((1, 96), np.uint8), policy, np.array([number]))
    for action in range(66):
        assert renamed[0, rename_action(action, RENAMINGS[number].tolist())] == action


def test_legal_actions_are_renamed_with_the_row() -> None:
    random = Random(2)
    table = deal(random, 4, 9)
    rows = []
    while not table.is_over:
        rows.append(observation(table))
        table.apply(choose(table, random))
    before = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 96)
    legal = legal_actions(before)
    numbers = np.arange(len(rows)) % 24
    after, renamed_legal = rename_suits(before, legal.astype(np.float32), numbers)
    assert (legal_actions(after) == renamed_legal.astype(bool)).all()


@torch.no_grad()
def test_the_network_answers_a_renamed_row_with_its_answer_renamed() -> None:
    network = create_network("small", seed=3)
    rows = sample_rows(240, seed=4)
    policy, value = network(torch.from_numpy(rows))
    renamed_rows, renamed_policy = rename_suits(rows, policy.numpy(), np.arange(240) % 24)
    found_policy, found_value = network(torch.from_numpy(renamed_rows))
    np.testing.assert_allclose(found_policy.numpy(), renamed_policy, atol=1e-5)
    np.testing.assert_allclose(found_value.numpy(), value.numpy(), atol=1e-5)
    assert np.abs(policy.numpy() - renamed_policy).max() > 0.1  # it does tell cards apart
