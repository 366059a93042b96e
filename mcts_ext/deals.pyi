# SPDX-License-Identifier: Apache-2.0
from mcts_ext.config import DealConfig

ROUNDS_APART: int
TRUMPS: tuple[int | None, ...]

def hand_sizes(n_players: int, start_cards: int) -> list[int]: ...
def games_for(rounds: int, *, seed: int, deal: DealConfig) -> tuple[int, int]: ...
