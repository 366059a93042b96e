# SPDX-License-Identifier: Apache-2.0
"""Configuration of the search and of the rounds dealt in self-play."""

from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from mcts_ext.contract import MAX_HAND, N_CARDS_IN_DECK, N_SEATS
from mcts_ext.errors import InvalidConfig

MAX_LEAVES_PER_TREE = 256
LARGEST_SEED: Final = 2**64 - 1
"""Largest seed of a random stream; larger numbers would wrap around to another seed."""

Unit = Literal["round", "game"]
"""What self-play deals: independent rounds or whole games."""


@dataclass(frozen=True)
class SearchConfig:
    """Search of one decision: D determinizations with K simulations each; root statistics are summed over the trees."""

    determinizations: int = 3
    """Number of determinizations per decision, each with its own tree (D)."""
    candidates: int = 0  # costs one evaluation per candidate and earlier choice of another seat
    """Number of candidate deals, resampled by the probability of the others' moves so far; 0 draws deals uniformly."""
    simulations: int = 30
    """Number of simulations per tree after its root is expanded (K); 0 plays the network's policy."""
    leaves_per_tree: int = 1
    """Number of leaves per tree evaluated in parallel; more than 1 costs search quality (virtual loss)."""
    c_puct: float = 1.5
    """Exploration constant c_puct of PUCT: weight of the prior against the value."""
    fpu_reduction: float = 0.1
    """First-play urgency (FPU): an unvisited child gets its parent's value minus this."""
    even_root: bool = False
    """Visit the root's actions equally often, at least once each, with PUCT below it; needs `q_scale`."""
    dirichlet_alpha: float = 1.0
    """Concentration of the Dirichlet root noise (alpha)."""
    dirichlet_fraction: float = 0.25
    """Fraction of noise in the root's priors (epsilon); 0 turns it off."""
    q_scale: float = 0.0
    """Weight of Q in the improved policy softmax(log prior + q_scale * Q); 0 uses the visit distribution instead."""
    temperature: float = 1.0
    """Temperature at the start of a round: moves are drawn from policy ** (1 / temperature); 0 takes the argmax."""
    temperature_final: float = 0.25
    """Temperature at the end of a round, reached linearly in the moves made."""

    def __post_init__(self) -> None:
        _check_range("determinizations", self.determinizations, 1, 10_000)
        _check_range("candidates", self.candidates, 0, 10_000)
        if 0 < self.candidates < self.determinizations:
            raise InvalidConfig(
                f"expected candidates of at least determinizations {self.determinizations}, or 0, got {self.candidates}"
            )
        _check_range("simulations", self.simulations, 0, 1_000_000)
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
        """Maximum number of rows that one decision adds to a batch."""
        return max(self.determinizations * self.leaves_per_tree, self.candidates)

    def without_noise(self) -> "SearchConfig":
        """Return this search for match play: no root noise, temperature 0."""
        return replace(self, dirichlet_fraction=0.0, temperature=0.0, temperature_final=0.0)


@dataclass(frozen=True)
class DealConfig:
    """Distribution of the dealt rounds: uniform over the allowed (players, cards) pairs, dealers and trumps.

    For whole games, `cards` is the size of the largest hand; only the first dealer is drawn, and trumps rotate.
    """

    players: tuple[int, ...] = (4,)
    cards: tuple[int, ...] = (5,)
    unit: Unit = "round"

    def __post_init__(self) -> None:
        if not self.players or not self.cards:
            raise InvalidConfig("expected at least one number of players and one number of cards, got none")
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
        """Return every (players, cards) pair that the deck allows, without duplicates."""
        return [(p, n) for p in sorted(set(self.players)) for n in sorted(set(self.cards)) if p * n <= N_CARDS_IN_DECK]


def check_seed(seed: object, *, what: str) -> int:
    """Return `seed` if it is valid; `what` names it in the error.

    Raises:
        InvalidConfig: if it is not an integer, or out of range.
    """
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
        raise InvalidConfig(f"expected {what} in 0..{LARGEST_SEED}, got {seed!r}")
    return seed


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidConfig(f"expected {name} in {low}..{high}, got {value}")
