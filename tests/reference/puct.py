# SPDX-License-Identifier: Apache-2.0
"""One search tree in slow and obvious Python: PUCT over a deal with all hands open, max^n backup, virtual loss.

PUCT after Silver et al. 2017 (AlphaGo Zero), https://doi.org/10.1038/nature24270; the twin of `mcts_ext/tree.pyx` and
of the waves in `mcts_ext/search.pyx`, without root noise.
"""

from dataclasses import dataclass, field
from math import exp, sqrt

import numpy as np

from mcts_ext.config import SearchConfig
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from tests.support.evaluators import Evaluate


@dataclass
class Node:
    """A position and the edge into it, chosen by `seat`."""

    seat: int = 0
    prior: float = 1.0
    value_sum: float = 0.0
    n_visits: int = 0
    n_in_flight: int = 0
    value: float = 0.0
    children: dict[int, "Node"] = field(default_factory=dict)


def search(table: Round, config: SearchConfig, evaluate: Evaluate) -> Node:
    """The root after K simulations; `config.determinizations` is not looked at."""
    root = Node()
    n_begun = 0
    n_simulations = max(config.simulations, len(table.legal_actions())) if config.even_root else config.simulations
    while n_begun <= n_simulations:
        wave: list[tuple[list[Node], Round]] = []
        while len(wave) < config.leaves_per_tree and n_begun <= n_simulations:
            n_begun += 1
            path, state = _descend(root, table, config)
            if state.is_over:
                _backup(path, [score / (10 + state.n_cards) for score in state.scores()])
                continue
            wave.append((path, state))
            if path == [root]:
                break
        for path, state in wave:
            _finish(path, state, evaluate)
    return root


def _descend(root: Node, table: Round, config: SearchConfig) -> tuple[list[Node], Round]:
    path, state = [root], table.copy()
    root.n_in_flight += 1
    while path[-1].children:
        node = path[-1]
        if config.even_root and node is root:
            scores = {a: (-child.n_visits - child.n_in_flight, child.prior) for a, child in node.children.items()}
        else:
            scores = {a: (_score(node, child, config), 0.0) for a, child in node.children.items()}
        action = max(scores, key=lambda a: (scores[a], -a))
        path.append(node.children[action])
        path[-1].n_in_flight += 1
        state.apply(action)
        while len(state.legal_actions()) == 1:
            state.apply(state.legal_actions()[0])
    return path, state


def _score(node: Node, child: Node, config: SearchConfig) -> float:
    n = child.n_visits + child.n_in_flight
    q = child.value_sum / n if n else node.value - config.fpu_reduction
    return q + config.c_puct * child.prior * sqrt(node.n_visits + node.n_in_flight) / (1 + n)


def _finish(path: list[Node], state: Round, evaluate: Evaluate) -> None:
    """Evaluate a leaf, expand it unless the same wave has, and back up."""
    row = np.frombuffer(observation(state), dtype=np.uint8).reshape(1, -1)
    logits, values = (numbers[0].tolist() for numbers in evaluate(row))
    leaf, seat, legal = path[-1], state.seat_to_act, state.legal_actions()
    assert seat is not None
    if not leaf.children:
        total = sum(exp(logits[action]) for action in legal)
        leaf.children = {action: Node(seat=seat, prior=exp(logits[action]) / total) for action in legal}
        leaf.value = values[0]
    _backup(path, [values[(other - seat) % state.n_players] for other in range(state.n_players)])


def _backup(path: list[Node], values: list[float]) -> None:
    """`values` by absolute seat."""
    for node in path:
        node.n_in_flight -= 1
        node.n_visits += 1
        node.value_sum += values[node.seat]
