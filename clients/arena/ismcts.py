# SPDX-License-Identifier: Apache-2.0
"""OpenSpiel's information-set MCTS as an independent opponent.

`pyspiel.ISMCTSBot` implements Cowling, Powley and Whitehouse 2012 in C++: one tree over information sets, UCB1, random
rollouts, the most visited action. It plays OpenSpiel's game `oh_hell`, which has the same moves as ours
(docs/rules.md), and differs from our players in four ways:

- It maximizes OpenSpiel's returns: tricks taken, plus 10 if the bid is made. Our score is 10 + bid if it is made, else
  0. Making the bid dominates in both; once the bid is lost, this bot still collects tricks, which are worth nothing
  here.
- It resamples only cards that are in play, so it knows which cards are undealt.
- It ignores shown voids when resampling.
- It is not a function of its seed: ties are broken in the order of hash tables, which varies.

`FairISMCTSBot` removes the knowledge of the cards in play.

OpenSpiel is part of the extra `dev`, so it is imported when the first such player is created.
"""

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from mcts_ext.contract import FIRST_CARD_ACTION, N_CARDS_IN_DECK
from mcts_ext.determinize import determinized
from mcts_ext.errors import InvalidConfig
from mcts_ext.rules import Round

SUITS: Final = "CDSH"
"""Suits in OpenSpiel's order; ours is SHCD."""
NO_CARD_TURNED_UP: Final = -5
MAX_PLAYERS: Final = 7
_EXPLORATION: Final = 0.7
"""Exploration constant of UCB1 as a fraction of the largest return."""
_DEALS: Final = 40
"""Determinizations of a fair search; 10 are about as strong, one is much weaker (docs/experiments/ismcts.md)."""


class ISMCTSBot:
    """OpenSpiel's ISMCTS bot (see the module docstring) with a number of simulations per decision."""

    def __init__(self, simulations: int) -> None:
        if not 2 <= simulations <= 10_000_000:
            raise InvalidConfig(f"expected ismcts:SIMULATIONS in 2..10000000, got {simulations}")
        import pyspiel

        self._simulations = simulations
        self._pyspiel = pyspiel

    def choose(self, table: Round, *, seed: int) -> int:
        """See `Bot`; equal seeds need not give equal actions."""
        return _most_visited(self._visits(mirror(table), self._simulations, seed))

    def _visits(self, state: Any, simulations: int, seed: int) -> Counter[int]:
        """Return the visit distribution by OpenSpiel's action."""
        for_bot, for_rollouts = Random(seed).sample(range(2**31), 2)  # equal seeds would give equal random numbers
        bot = self._pyspiel.ISMCTSBot(
            for_bot,
            self._pyspiel.RandomRolloutEvaluator(1, for_rollouts),
            _EXPLORATION * state.get_game().max_utility(),
            simulations,
            -1,  # a new deal for every simulation
            self._pyspiel.ISMCTSFinalPolicyType.NORMALIZED_VISIT_COUNT,
        )
        return Counter(dict(bot.get_policy(state)))


class FairISMCTSBot(ISMCTSBot):
    """`ISMCTSBot` without knowledge of the undealt cards.

    OpenSpiel's search has no option for this. So the simulations are divided over `_DEALS` determinizations, with hands
    dealt from all unseen cards as in our own search (mcts_ext/determinize.pyx): in each of them the bot knows the cards
    in play, but these differ between determinizations. The visits are summed.
    """

    def choose(self, table: Round, *, seed: int) -> int:
        """See `Bot`; equal seeds need not give equal actions."""
        seat = table.seat_to_act
        assert seat is not None
        n_deals = min(_DEALS, self._simulations // 2)  # the first simulation only creates the root
        visits: Counter[int] = Counter()
        for i in range(n_deals):
            state = mirror(determinized(table, seat, seed=seed, stream=i))
            visits.update(self._visits(state, self._simulations // n_deals, seed + i))
        return _most_visited(visits)


def _most_visited(visits: Counter[int]) -> int:
    return our_action(visits.most_common(1)[0][0])


def mirror(table: Round) -> Any:
    """Return OpenSpiel's state for a round in any phase.

    Raises:
        InvalidConfig: if there are more than seven players.
    """
    if table.n_players > MAX_PLAYERS:
        raise InvalidConfig(f"expected at most {MAX_PLAYERS} players with OpenSpiel, got {table.n_players}")
    played = [pair for trick in table.tricks for pair in trick]
    hands = [list(hand) for hand in table.hands]
    for seat, card in played:
        hands[seat].append(card)
    state = deal(hands, dealer=table.dealer, trump=table.trump)
    for i in range(table.n_players):
        bid = table.bids[(table.dealer + 1 + i) % table.n_players]
        if bid is not None:
            state.apply_action(their_action(bid))
    for _, card in played:
        state.apply_action(their_card(card))
    return state


def deal(hands: Sequence[Sequence[int]], *, dealer: int, trump: int | None) -> Any:
    """Return OpenSpiel's state before the bidding with these hands (mapping: docs/rules.md)."""
    import pyspiel

    n_cards = len(hands[0])
    rules = {
        "players": len(hands),
        "num_tricks_fixed": n_cards,
        "off_bid_penalty": False,
        "points_per_trick": 1,
    }
    state = pyspiel.load_game("oh_hell", rules).new_initial_state()
    state.apply_action(n_cards)  # the number of tricks
    state.apply_action(dealer)
    for i in range(n_cards):  # one card at a time, from seat 0 whoever deals
        for hand in hands:
            state.apply_action(their_card(hand[i]))
    # Only its suit matters, and apply_action accepts any card, even one in a hand.
    state.apply_action(NO_CARD_TURNED_UP if trump is None else their_card(13 * trump))
    return state


def their_card(card: int) -> int:
    """Convert our card to OpenSpiel's index, rank * 4 + suit."""
    suit, rank = divmod(card, 13)
    return rank * 4 + SUITS.index("SHCD"[suit])


def their_action(action: int) -> int:
    """Convert our action to OpenSpiel's."""
    return their_card(action - FIRST_CARD_ACTION) if action >= FIRST_CARD_ACTION else N_CARDS_IN_DECK + action


def our_action(action: int) -> int:
    """Convert OpenSpiel's action to ours."""
    if action >= N_CARDS_IN_DECK:
        return action - N_CARDS_IN_DECK
    rank, suit = divmod(action, 4)
    return FIRST_CARD_ACTION + 13 * "SHCD".index(SUITS[suit]) + rank
