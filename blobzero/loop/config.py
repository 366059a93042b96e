# SPDX-License-Identifier: Apache-2.0
"""Settings of a learning loop: presets, user files, and the configurations derived for each generation."""

import tomllib
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from clients.arena.players import parse
from clients.files import read_small, reason
from mcts_ext.config import DealConfig, SearchConfig, Unit
from mcts_ext.errors import InvalidConfig
from training.config import TrainConfig

PRESETS: Final = Path(__file__).with_name("presets")

Gate = Literal["none", "better"]

RAMP: Final = "first and last generation"
PAIRS: Final = {
    "rounds": RAMP,
    "determinizations": RAMP,
    "simulations": RAMP,
    "match_search": "determinizations and simulations",
    "temperature": "start and end of a round",
}
"""Meaning of the two numbers of a pair."""

WORDS: Final = {int: "whole number", float: "number", str: "string", bool: "true or false"}


@dataclass(frozen=True)
class LoopSettings:
    """Settings of a loop. Rounds, determinizations and simulations are ramps from the first generation to the last."""

    network: str
    """Preset of the network."""
    generations: int
    rounds: tuple[int, int]
    """Self-play rounds per generation."""
    determinizations: tuple[int, int]
    simulations: tuple[int, int]
    """Simulations per determinization in self-play."""
    match_search: tuple[int, int]
    """Determinizations and simulations in matches."""
    c_puct: float
    """Exploration constant of PUCT: weight of the prior against the value."""
    q_scale: float
    """Weight of Q in the improved policy of self-play, softmax(log prior + q_scale * Q); 0 uses the visits instead."""
    match_q_scale: float
    """Weight of Q in the improved policy of matches."""
    match_even_root: bool
    """Whether matches visit the root's actions equally often (`SearchConfig.even_root`)."""
    dirichlet_fraction: float
    """Fraction of root noise in self-play."""
    temperature: tuple[float, float]
    """Temperature of self-play at the start and at the end of a round."""
    players: tuple[int, ...]
    cards: tuple[int, ...]
    """Numbers of cards; all (players, cards) pairs that the deck allows are equally likely."""
    unit: Unit
    """`round`: independent rounds; `game`: whole games that hold a generation's rounds."""
    steps: int
    """Training steps per generation."""
    learning_rate: float
    value_weight: float
    """Weight of the value loss relative to the policy loss."""
    ema_decay: float
    """Decay of the EMA of the weights, which is published; it must forget within a generation's steps."""
    window: int
    """Maximum size of the replay window in positions."""
    deals: int
    """Deals per match."""
    final_deals: int
    """Deals per match with the fixed opponents in the last generation."""
    bots: tuple[str, ...]
    """Fixed opponents."""
    bots_every: int
    """Generations between matches with the fixed opponents; the last generation always plays them."""
    gate: Gate
    """`better`: a network that does not beat the previous version in the match is rolled back."""
    even_root: bool = False
    """Whether self-play visits the root's actions equally often (`SearchConfig.even_root`)."""
    policy_deals: int = 0
    """Deals per match of the bare policy (one evaluation a decision) with the first of `bots`, each generation."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(LoopSettings).items():
            _check_type(name, getattr(self, name), kind)
        for name in ("generations", "steps", "window", "deals", "final_deals", "bots_every"):
            if getattr(self, name) < 1:
                raise InvalidConfig(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.gate not in get_args(Gate):
            raise InvalidConfig(f"expected gate of {', '.join(get_args(Gate))}, got {self.gate!r}")
        if self.policy_deals < 0 or (self.policy_deals and not self.bots):
            raise InvalidConfig(f"expected policy_deals of at least 0, and a bot to meet, got {self.policy_deals}")
        if min(self.simulations) < 1:  # without a search the network would be taught its own policy
            raise InvalidConfig(f"expected simulations in 1..1000000, got {min(self.simulations)}")
        if self.even_root and not self.q_scale:
            raise InvalidConfig("expected q_scale above 0 with even_root, got 0: all visits would be equal")
        if min(self.rounds) < 1:
            raise InvalidConfig(f"expected rounds of at least 1, got {list(self.rounds)}")
        for determinizations, simulations in zip(self.determinizations, self.simulations, strict=True):
            self._search(determinizations, simulations)
        self.search_of_matches()
        self.deal()
        self.training(seed=0)
        for bot in self.bots:
            parse(bot)

    def rounds_of(self, generation: int) -> int:
        """Return the self-play rounds of a generation, counted from 0."""
        return self._ramp(self.rounds, generation)

    def search_of(self, generation: int) -> SearchConfig:
        """Return the self-play search of a generation."""
        return self._search(self._ramp(self.determinizations, generation), self._ramp(self.simulations, generation))

    def search_of_matches(self) -> SearchConfig:
        """Return the search of all matches."""
        search = self._search(*self.match_search).without_noise()
        return replace(search, q_scale=self.match_q_scale, even_root=self.match_even_root)

    def training(self, *, seed: int) -> TrainConfig:
        """Return the training configuration, with one cosine schedule over all generations."""
        total = self.steps * self.generations
        return TrainConfig(
            preset=self.network,
            seed=seed,
            learning_rate=self.learning_rate,
            schedule="cosine",
            warmup_steps=min(100, total // 10),
            schedule_steps=total,
            ema_decay=self.ema_decay,
            value_weight=self.value_weight,
            window_max=self.window,
        )

    def deal(self) -> DealConfig:
        """Return the distribution of the dealt rounds."""
        return DealConfig(players=self.players, cards=self.cards, unit=self.unit)

    def meets_bots(self, generation: int) -> bool:
        """Return whether a generation plays the fixed opponents."""
        return (generation + 1) % self.bots_every == 0 or generation == self.generations - 1

    def deals_against_bots(self, generation: int) -> int:
        """Return the number of deals of each of these matches."""
        return self.final_deals if generation == self.generations - 1 else self.deals

    def _search(self, determinizations: int, simulations: int) -> SearchConfig:
        return SearchConfig(
            determinizations=determinizations,
            simulations=simulations,
            c_puct=self.c_puct,
            q_scale=self.q_scale,
            even_root=self.even_root,
            dirichlet_fraction=self.dirichlet_fraction,
            temperature=self.temperature[0],
            temperature_final=self.temperature[1],
        )

    def _ramp(self, ends: tuple[int, int], generation: int) -> int:
        return round(ends[0] + (ends[1] - ends[0]) * (generation / max(1, self.generations - 1)))


OPTIONAL: Final = {field.name: field.default for field in fields(LoopSettings) if field.default is not MISSING}
"""Settings that a file may leave out, as those written before they existed do, and what they are then."""


def load_settings(preset: str) -> LoopSettings:
    """Load a preset by name, or a TOML file.

    Raises:
        InvalidConfig: if there is no such preset or file, or settings are missing, unknown or out of range.
    """
    path = Path(preset) if preset.endswith(".toml") else PRESETS / f"{preset}.toml"
    try:
        settings = tomllib.loads(read_small(path).decode())
    except FileNotFoundError as error:
        known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
        raise InvalidConfig(f"expected a preset of {known}, or a TOML file, got {preset!r}") from error
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"expected TOML in {path}, got {reason(error)}") from error
    known_names = {field.name for field in fields(LoopSettings)}
    wrong = sorted(known_names ^ {**OPTIONAL, **settings}.keys())
    if wrong:
        names = ", ".join(sorted(known_names))
        raise InvalidConfig(f"expected the settings {names} in {path}, got missing or unknown {', '.join(wrong)}")
    lists = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
    return LoopSettings(**settings | lists)


def _check_type(name: str, value: Any, kind: Any) -> None:
    """Raise InvalidConfig unless a setting has the type of its field; ranges are checked later."""
    if get_origin(kind) is Literal:
        return
    is_tuple = get_origin(kind) is tuple
    item = get_args(kind)[0] if is_tuple else kind
    words = WORDS[item]
    if name in PAIRS:
        wanted = f"of two {words}s, {PAIRS[name]}"
    else:
        wanted = f"as a list of {words}s" if is_tuple else f"as {words}" if item is bool else f"as a {words}"
    items = value if is_tuple and isinstance(value, tuple) else (value,)
    is_sound = isinstance(value, tuple) == is_tuple and (name not in PAIRS or len(items) == 2)
    kinds = (int, float) if item is float else (item,)
    if not is_sound or any(not isinstance(v, kinds) or isinstance(v, bool) != (item is bool) for v in items):
        shown = list(value) if isinstance(value, tuple) else value
        raise InvalidConfig(f"expected {name} {wanted}, got {shown!r}")
