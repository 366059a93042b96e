# SPDX-License-Identifier: Apache-2.0
"""Full game at one table: the rotating dealer and the running totals. The sequence of rounds: deals.pyx."""

from random import Random

from mcts_ext.deals import TRUMPS, hand_sizes
from mcts_ext.errors import InvalidDeal
from mcts_ext.rules import Round


class Game:
    """Full game; play `current`, then call `finish_round`, until `is_over`.

    The first dealer is seat `seed % n_players`; the deals are a function of `seed` alone.
    """

    def __init__(self, n_players: int, start_cards: int, seed: int) -> None:
        if not 3 <= n_players <= 8 or not 1 <= start_cards <= 13 or n_players * start_cards > 52:
            raise InvalidDeal(
                "expected 3..8 players and 1..13 starting cards, at most 52 cards in all, "
                f"got {n_players} players x {start_cards} cards"
            )
        self.n_players = n_players
        self.start_cards = start_cards
        self.sizes = hand_sizes(n_players, start_cards)
        self.totals = [0] * n_players
        self.round_number = 0
        self._first_dealer = seed % n_players
        self._deals = Random(seed)
        self.current = self._deal()

    def _deal(self) -> Round:
        dealer = (self._first_dealer + self.round_number) % self.n_players
        deck = self._deals.sample(range(52), k=self.sizes[self.round_number] * self.n_players)
        return Round(
            [deck[seat :: self.n_players] for seat in range(self.n_players)],
            dealer=dealer,
            trump=TRUMPS[self.round_number % len(TRUMPS)],
            totals=self.totals,
            game_round=self.round_number,
            start_cards=self.start_cards,
        )

    @property
    def n_rounds(self) -> int:
        return len(self.sizes)

    @property
    def is_over(self) -> bool:
        return self.round_number == self.n_rounds

    def finish_round(self) -> list[int]:
        """Add the finished round's scores to the totals, deal the next round and return the scores."""
        scores = self.current.scores()
        self.totals = [total + score for total, score in zip(self.totals, scores, strict=True)]
        self.round_number += 1
        if not self.is_over:
            self.current = self._deal()
        return scores

    def winners(self) -> list[int]:
        """Return the seats with the highest total (several on a tie)."""
        if not self.is_over:
            raise ValueError("expected a finished game, got one in progress; play on until is_over")
        best = max(self.totals)
        return [seat for seat, total in enumerate(self.totals) if total == best]
