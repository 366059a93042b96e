# SPDX-License-Identifier: Apache-2.0
"""Settings of a search and of the rounds that self-play deals."""

from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from mcts_ext.contract import MAX_HAND, N_CARDS_IN_DECK, N_SEATS
from mcts_ext.errors import InvalidConfig

MAX_LEAVES_PER_TREE = 256
LARGEST_SEED: Final = 2**64 - 1
"""What a random stream takes; a larger one would be that of another seed again."""

Unit = Literal["round", "game"]
"""What self-play deals: rounds each on its own, or whole games."""


@dataclass(frozen=True)
class SearchConfig:
    """One decision's search: D determinizations of K simulations each, visits added up."""

    determinizations: int = 3
    """Deals drawn for each decision, each with a tree of its own (D)."""
    candidates: int = 0
    """Deals from which these are drawn, in proportion to how likely the network finds what the other seats have bid and
    played in them; 0 searches the first deals drawn, all as likely as each other. Costs an evaluation for each choice
    of another seat so far, of each candidate."""
    simulations: int = 30
    """Descents of each tree after its root is expanded (K)."""
    leaves_per_tree: int = 1
    """Leaves of one tree that wait for the network at once; more than 1 costs search quality (virtual loss)."""
    c_puct: float = 1.5
    """Weight of the prior against the value: c_puct of PUCT."""
    fpu_reduction: float = 0.1
    """First-play urgency: an unvisited child counts as its parent's value less this."""
    even_root: bool = False
    """Visit the actions at the root equally often, and let PUCT choose below: with as many simulations as actions each
    deal tells the value of each action. Meant for `q_scale`; shares of visits would say nothing."""
    dirichlet_alpha: float = 1.0
    """Concentration of the root noise, Dir(alpha)."""
    dirichlet_fraction: float = 0.25
    """Share of the root noise in the root's priors (epsilon); 0 turns it off."""
    q_scale: float = 0.0
    """The policy is softmax(log prior + q_scale * Q); 0 takes the shares of visits instead."""
    temperature: float = 1.0
    """Moves are drawn from policy ** (1 / temperature) at the start of a round; 0 takes the likeliest."""
    temperature_final: float = 0.25
    """The temperature that the end of the round approaches, linearly in the moves made."""

    def __post_init__(self) -> None:
        _check_range("determinizations", self.determinizations, 1, 10_000)
        _check_range("candidates", self.candidates, 0, 10_000)
        if 0 < self.candidates < self.determinizations:
            raise InvalidConfig(
                f"expected candidates of at least determinizations {self.determinizations}, or 0, got {self.candidates}"
            )
        _check_range("simulations", self.simulations, 1, 1_000_000)
        _check_range("leaves_per_tree", self.leaves_per_tree, 1, MAX_LEAVES_PER_TREE)
        _check_range("c_puct", self.c_puct, 0.0, 100.0)
        _check_range("fpu_reduction", self.fpu_reduction, 0.0, 1.0)
        _check_range("q_scale", self.q_scale, 0.0, 10_000.0)
        _check_range("dirichlet_alpha", self.dirichlet_alpha, 0.001, 1000.0)
        _check_range("dirichlet_fraction", self.dirichlet_fraction, 0.0, 1.0)
        _check_range("temperature", self.temperature, 0.0, 100.0)
        _check_range("temperature_final", self.temperature_final, 0.0, 100.0)

    @property
    def rows(self) -> int:
        """Evaluations that one decision waits for at once, at most."""
        return max(self.determinizations * self.leaves_per_tree, self.candidates)

    def without_noise(self) -> "SearchConfig":
        """The same search as a player uses it: no root noise, the likeliest move."""
        return replace(self, dirichlet_fraction=0.0, temperature=0.0, temperature_final=0.0)


@dataclass(frozen=True)
class DealConfig:
    """Which rounds are dealt: players and cards drawn uniformly from every allowed pair, dealer and trump uniformly.

    Of whole games, `cards` are those of the largest hand; only the first dealer is drawn, and trumps go round.
    """

    players: tuple[int, ...] = (4,)
    cards: tuple[int, ...] = (5,)
    unit: Unit = "round"

    def __post_init__(self) -> None:
        if not self.players or not self.cards:
            raise InvalidConfig("expected at least one number of players and of cards, got none")
        for n_players in self.players:
            _check_range("players", n_players, 3, N_SEATS)
        for n_cards in self.cards:
            _check_range("cards", n_cards, 1, MAX_HAND)
        if self.unit not in get_args(Unit):
            raise InvalidConfig(f"expected unit of {', '.join(get_args(Unit))}, got {self.unit!r}")
        if not self.pairs():
            raise InvalidConfig(
                f"expected players x cards of at most {N_CARDS_IN_DECK}, got {min(self.players)} x {min(self.cards)} = "
                f"{min(self.players) * min(self.cards)}; deal fewer cards"
            )

    def pairs(self) -> list[tuple[int, int]]:
        """Every (players, cards) that the deck allows, once each."""
        return [(p, n) for p in sorted(set(self.players)) for n in sorted(set(self.cards)) if p * n <= N_CARDS_IN_DECK]


def check_seed(seed: object, *, what: str) -> int:
    """A seed that is one; `what` says whose.

    Raises:
        InvalidConfig: no whole number, or out of range.
    """
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
        raise InvalidConfig(f"expected {what} in 0..{LARGEST_SEED}, got {seed!r}")
    return seed


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidConfig(f"expected {name} in {low}..{high}, got {value}")
