# SPDX-License-Identifier: Apache-2.0
"""What training minimizes, on cases worked out by hand, and the legal actions it reads off observations."""

import math
from random import Random

import numpy as np
import pytest
import torch

from mcts_ext.legal import legal_actions, seats_in_round
from mcts_ext.observe import observation
from tests.support.positions import SHAPES, deal, playout
from training.config import TrainConfig
from training.learner import learning_rate, losses


def test_legal_actions_are_those_of_the_rules() -> None:
    random = Random(3)
    rows, wanted, players, n_hooked, n_followed = [], [], [], 0, 0
    for shape in SHAPES * 12:
        for table in playout(deal(random, *shape), random):
            legal = table.legal_actions()
            assert table.seat_to_act is not None
            n_hooked += table.is_bidding and len(legal) == table.n_cards
            n_followed += not table.is_bidding and len(legal) < len(table.hands[table.seat_to_act])
            rows.append(observation(table))
            wanted.append(legal)
            players.append(table.n_players)
    assert min(n_hooked, n_followed) > 100
    found = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 96)
    assert [np.flatnonzero(row).tolist() for row in legal_actions(found)] == [sorted(row) for row in wanted]
    assert seats_in_round(found).sum(axis=1).tolist() == players


def batch() -> dict[str, torch.Tensor]:
    """Two rows: one of three legal actions and three seats, one of a single action and four seats."""
    policy, legal = torch.zeros(2, 66), torch.zeros(2, 66, dtype=torch.bool)
    legal[0, [0, 1, 20]] = True
    policy[0, [0, 20]] = torch.tensor([0.25, 0.75])
    legal[1, 65] = policy[1, 65] = 1
    outcome, seats = torch.zeros(2, 8), torch.arange(8) < torch.tensor([[3], [4]])
    outcome[0, 0], outcome[1, 3] = 0.5, 1.0
    return {"policy": policy, "legal": legal, "outcome": outcome, "seats": seats}


def test_losses_by_hand() -> None:
    logits, value = torch.full((2, 66), 50.0), torch.full((2, 8), 0.9)  # illegal actions and absent seats: no matter
    logits[0, [0, 1, 20]] = torch.tensor([1.0, 0.0, 2.0])
    value[0, :3] = torch.tensor([0.5, 0.1, 0.2])
    value[1, :4] = torch.tensor([0.0, 0.0, 0.0, 0.4])
    found = losses(logits, value, **batch(), value_weight=3.0)
    normalizer = math.log(math.e + 1 + math.e**2)
    policy = (0.25 * (normalizer - 1) + 0.75 * (normalizer - 2)) / 2
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / 2
    error = ((0.01 + 0.04) / 3 + 0.36 / 4) / 2
    assert found.policy.item() == pytest.approx(policy, rel=1e-5)
    assert found.policy_kl.item() == pytest.approx(policy - entropy, rel=1e-4)
    assert found.value.item() == pytest.approx(error, rel=1e-5)
    assert found.total.item() == pytest.approx(policy + 3 * error, rel=1e-5)


def test_no_gradient_reaches_illegal_actions_and_absent_seats() -> None:
    logits, value = torch.randn(2, 66, requires_grad=True), torch.rand(2, 8, requires_grad=True)
    rows = batch()
    losses(logits, value, **rows, value_weight=1.0).total.backward()
    assert logits.grad is not None
    assert value.grad is not None
    assert not logits.grad[~rows["legal"]].any()
    assert not value.grad[~rows["seats"]].any()
    assert logits.grad[0, 1] > 0  # legal and never visited: less likely from here on
    assert torch.isfinite(logits.grad).all()


def test_learning_rate() -> None:
    config = TrainConfig(learning_rate=0.1, warmup_steps=10, schedule="cosine", schedule_steps=30)
    assert [learning_rate(step, config) for step in (0, 4, 9, 10, 20, 30, 99)] == pytest.approx(
        [0.01, 0.05, 0.1, 0.1, 0.05, 0.0, 0.0]
    )
    constant = TrainConfig(learning_rate=0.1, warmup_steps=0)
    assert learning_rate(0, constant) == learning_rate(10**6, constant) == 0.1
