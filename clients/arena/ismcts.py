# SPDX-License-Identifier: Apache-2.0
"""OpenSpiel's information-set Monte Carlo tree search as a player: an opponent that is not ours.

`pyspiel.ISMCTSBot` is Cowling, Powley and Whitehouse 2012 in C++: one tree over information sets, UCB1, random
rollouts, the most visited action. It plays its own game `oh_hell`, which has the same moves as ours (docs/rules.md),
and differs from our players in four ways:

- It maximizes OpenSpiel's returns: tricks taken, and 10 more for a bid made. Ours is 10 + bid for a bid made, else 0.
  So both want the bid made, by far; once it is lost, this one still collects tricks, which earn it nothing here.
- It resamples among the cards that really are in play, never an undealt one: it knows which cards those are.
- It resamples without regard to the voids that were shown.
- It is no function of its seed: it breaks ties in the order of hash tables, which changes from one to the next.

`FairISMCTSBot` is the same without the knowledge of the cards in play.

OpenSpiel is installed with the extra `dev`; it is imported when the first such player is made.
"""

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from mcts_ext.contract import FIRST_CARD_ACTION, N_CARDS_IN_DECK
from mcts_ext.determinize import determinized
from mcts_ext.errors import BlobError, InvalidConfig
from mcts_ext.rules import Round

SUITS: Final = "CDSH"
"""OpenSpiel's order; ours is SHCD."""
NO_CARD_TURNED_UP: Final = -5
MAX_PLAYERS: Final = 7
_EXPLORATION: Final = 0.7
"""UCB1's constant as a share of the largest return."""
_DEALS: Final = 40
"""Of a fair search; with 10 it is about as strong, with one much weaker (docs/experiments/ismcts.md)."""


class OpenSpielMissing(BlobError):
    """OpenSpiel is not installed."""


class ISMCTSBot:
    """See the module.

    Args:
        simulations: for each decision.

    Raises:
        OpenSpielMissing: it is not installed.
    """

    def __init__(self, simulations: int) -> None:
        if not 2 <= simulations <= 10_000_000:
            raise InvalidConfig(f"expected ismcts:SIMULATIONS in 2..10000000, got {simulations}")
        self._simulations = simulations
        self._pyspiel = load_pyspiel()

    def choose(self, table: Round, *, seed: int) -> int:
        """See `Bot`; the same seed need not give the same action."""
        return _likeliest(self._visits(mirror(table), self._simulations, seed))

    def _visits(self, state: Any, simulations: int, seed: int) -> Counter[int]:
        """By OpenSpiel's action, its share of the visits."""
        for_bot, for_rollouts = Random(seed).sample(range(2**31), 2)  # one seed would give both the same numbers
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
    """`ISMCTSBot` with what the rules let a player know: any card it has not seen may be another's, or undealt.

    OpenSpiel's search can be told no such thing. So it is run with a share of the simulations in each of `_DEALS`
    rounds whose other hands are dealt from all unseen cards, as for our own search (mcts_ext/determinize.pyx): in each
    it knows which cards are in play, but they are others each time. The visits are added up.
    """

    def choose(self, table: Round, *, seed: int) -> int:
        """See `Bot`; the same seed need not give the same action."""
        seat = table.seat_to_act
        assert seat is not None
        n_deals = min(_DEALS, self._simulations // 2)  # the first simulation makes the root, and visits nothing
        visits: Counter[int] = Counter()
        for i in range(n_deals):
            state = mirror(determinized(table, seat, seed=seed, stream=i))
            visits.update(self._visits(state, self._simulations // n_deals, seed + i))
        return _likeliest(visits)


def _likeliest(visits: Counter[int]) -> int:
    return our_action(visits.most_common(1)[0][0])


def mirror(table: Round) -> Any:
    """OpenSpiel's state at a round of ours, whatever has happened in it.

    Raises:
        InvalidConfig: more than seven players.
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
    """OpenSpiel's state with these cards of ours dealt, the bids to come (docs/rules.md says how the two map)."""
    n_cards = len(hands[0])
    rules = {
        "players": len(hands),
        "num_tricks_fixed": n_cards,
        "off_bid_penalty": False,
        "points_per_trick": 1,
    }
    state = load_pyspiel().load_game("oh_hell", rules).new_initial_state()
    state.apply_action(n_cards)  # the number of tricks
    state.apply_action(dealer)
    for i in range(n_cards):  # one by one, from seat 0 whatever the dealer
        for hand in hands:
            state.apply_action(their_card(hand[i]))
    # Its suit alone matters, and apply_action takes any card: even one in a hand.
    state.apply_action(NO_CARD_TURNED_UP if trump is None else their_card(13 * trump))
    return state


def their_card(card: int) -> int:
    """OpenSpiel's index of our card: rank * 4 + suit."""
    suit, rank = divmod(card, 13)
    return rank * 4 + SUITS.index("SHCD"[suit])


def their_action(action: int) -> int:
    """OpenSpiel's number of our action."""
    return their_card(action - FIRST_CARD_ACTION) if action >= FIRST_CARD_ACTION else N_CARDS_IN_DECK + action


def our_action(action: int) -> int:
    """Our number of OpenSpiel's action."""
    if action >= N_CARDS_IN_DECK:
        return action - N_CARDS_IN_DECK
    rank, suit = divmod(action, 4)
    return FIRST_CARD_ACTION + 13 * "SHCD".index(SUITS[suit]) + rank


def load_pyspiel() -> Any:
    """The module.

    Raises:
        OpenSpielMissing: it is not installed.
    """
    try:
        import pyspiel
    except ImportError as error:
        raise OpenSpielMissing("expected OpenSpiel, got none; pip install -e .[dev]") from error
    return pyspiel
