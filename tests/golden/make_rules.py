# SPDX-License-Identifier: Apache-2.0
"""Remake the golden playthroughs: `python -m tests.golden.make_rules`; look at what changed before committing it."""

from pathlib import Path
from random import Random

from mcts_ext.names import action as name
from mcts_ext.rules import Round

GOLDEN = Path(__file__).parent / "rules"
CASES = [(3, 1, 4, 1), (3, 13, 0, 2), (4, 5, 2, 3), (5, 7, 4, 4), (8, 6, 1, 5), (4, 13, 3, 6)]
"""(players, cards, trump with 4 for none, seed)."""


def playthrough(players: int, cards: int, trump: int | None, seed: int) -> str:
    """A round played by random legal actions: the deal, each action with what was legal, the end."""
    random = Random(seed)
    table = Round.deal(players, cards, seed % players, trump, seed)
    lines = [str(table), ""]
    while not table.is_over:
        legal = table.legal_actions()
        chosen = random.choice(legal)
        lines.append(f"seat {table.seat_to_act}: {name(chosen)}   of {', '.join(map(name, legal))}")
        table.apply(chosen)
    return "\n".join([*lines, "", str(table), ""])


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for players, cards, trump, seed in CASES:
        text = playthrough(players, cards, None if trump == 4 else trump, seed)
        (GOLDEN / f"{players}-{cards}-{trump}-{seed}.txt").write_text(text)
