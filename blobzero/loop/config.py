# SPDX-License-Identifier: Apache-2.0
"""The settings of a learning loop: presets, files of one's own, and what they mean for each generation."""

import tomllib
from dataclasses import dataclass, fields, replace
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
"""What the two numbers of a pair are."""

WORDS: Final = {int: "whole number", float: "number", str: "string", bool: "true or false"}


@dataclass(frozen=True)
class LoopSettings:
    """What a loop does. Rounds, determinizations and simulations are ramps, from the first generation to the last."""

    network: str
    """Preset of the network."""
    generations: int
    rounds: tuple[int, int]
    """Self-play rounds of a generation."""
    determinizations: tuple[int, int]
    simulations: tuple[int, int]
    """Of the search in self-play."""
    match_search: tuple[int, int]
    """Determinizations and simulations of every match."""
    c_puct: float
    """Weight of the network's prior against the values found."""
    q_scale: float
    """The policy of a search in self-play is softmax(log prior + q_scale * Q); 0 takes the shares of visits."""
    match_q_scale: float
    """The same in matches, whose searches are to play well rather than to teach."""
    match_even_root: bool
    """Whether matches visit the actions at the root equally often (`SearchConfig.even_root`)."""
    dirichlet_fraction: float
    """Share of the root noise in self-play."""
    temperature: tuple[float, float]
    """Of self-play, at the start and at the end of a round."""
    players: tuple[int, ...]
    cards: tuple[int, ...]
    """Each pair that the deck allows is drawn as often as any other."""
    unit: Unit
    """`round`: self-play's rounds each on its own; `game`: whole games, as many as hold a generation's rounds."""
    steps: int
    """Training steps of a generation."""
    learning_rate: float
    value_weight: float
    """Of the value loss beside the policy loss."""
    ema_decay: float
    """Of the running mean of the weights that is published: it must forget within a generation's steps."""
    window: int
    """Positions that training draws from, at most."""
    deals: int
    """Of each match."""
    final_deals: int
    """Of the last generation's matches with the fixed opponents."""
    bots: tuple[str, ...]
    """Fixed opponents."""
    bots_every: int
    """Generations between matches with them; the last generation always has them."""
    gate: Gate
    """`better`: a network that the match with the version before does not find better is rolled back."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(LoopSettings).items():
            _check_type(name, getattr(self, name), kind)
        for name in ("generations", "steps", "window", "deals", "final_deals", "bots_every"):
            if getattr(self, name) < 1:
                raise InvalidConfig(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.gate not in get_args(Gate):
            raise InvalidConfig(f"expected gate of {', '.join(get_args(Gate))}, got {self.gate!r}")
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
        """Self-play rounds of one generation, counted from 0."""
        return self._ramp(self.rounds, self._progress(generation))

    def search_of(self, generation: int) -> SearchConfig:
        """The search of its self-play."""
        progress = self._progress(generation)
        return self._search(self._ramp(self.determinizations, progress), self._ramp(self.simulations, progress))

    def search_of_matches(self) -> SearchConfig:
        """The search of every match."""
        search = self._search(*self.match_search).without_noise()
        return replace(search, q_scale=self.match_q_scale, even_root=self.match_even_root)

    def training(self, *, seed: int) -> TrainConfig:
        """Of all generations, one cosine."""
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
        """Which rounds are dealt."""
        return DealConfig(players=self.players, cards=self.cards, unit=self.unit)

    def meets_bots(self, generation: int) -> bool:
        """Whether a generation plays the fixed opponents."""
        return (generation + 1) % self.bots_every == 0 or generation == self.generations - 1

    def deals_against_bots(self, generation: int) -> int:
        """Deals of each of these matches."""
        return self.final_deals if generation == self.generations - 1 else self.deals

    def _progress(self, generation: int) -> float:
        return generation / max(1, self.generations - 1)

    def _search(self, determinizations: int, simulations: int) -> SearchConfig:
        return SearchConfig(
            determinizations=determinizations,
            simulations=simulations,
            c_puct=self.c_puct,
            q_scale=self.q_scale,
            dirichlet_fraction=self.dirichlet_fraction,
            temperature=self.temperature[0],
            temperature_final=self.temperature[1],
        )

    @staticmethod
    def _ramp(ends: tuple[int, int], progress: float) -> int:
        return round(ends[0] + (ends[1] - ends[0]) * progress)


def load_settings(preset: str) -> LoopSettings:
    """Read a preset by its name, or a TOML file of one's own.

    Raises:
        InvalidConfig: no such preset or file, or settings that are missing, unknown or out of range.
    """
    path = Path(preset) if preset.endswith(".toml") else PRESETS / f"{preset}.toml"
    try:
        found = tomllib.loads(read_small(path).decode())
    except FileNotFoundError as error:
        known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
        raise InvalidConfig(f"expected a preset of {known}, or a TOML file, got {preset!r}") from error
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"expected TOML in {path}, got {reason(error)}") from error
    known_names = {field.name for field in fields(LoopSettings)}
    wrong = sorted(known_names ^ found.keys())
    if wrong:
        names = ", ".join(sorted(known_names))
        raise InvalidConfig(f"expected the settings {names} in {path}, got a difference in {', '.join(wrong)}")
    return LoopSettings(**{name: _frozen(value) for name, value in found.items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_type(name: str, value: Any, kind: Any) -> None:
    """Raise InvalidConfig unless a setting has the type that its field says; the ranges are checked later."""
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
