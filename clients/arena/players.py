# SPDX-License-Identifier: Apache-2.0
"""Player specs of a match and the players they name.

| spec | player |
| --- | --- |
| `random`, `heuristic`, ... | a bot: `BOTS` in clients/arena/bots.py |
| `pimc`, `pimc:WORLDS` | perfect-information Monte Carlo, mcts_ext/pimc.pyx; 50 worlds by default |
| `ismcts`, `ismcts:SIMULATIONS` | OpenSpiel's ISMCTS, clients/arena/ismcts.py; 1,000 simulations by default |
| `ismcts-fair`, `ismcts-fair:SIMULATIONS` | the same without knowledge of the undealt cards |
| `search-uniform` | our search with the uniform evaluator |
| `latest` | our search with the version served as latest when the match begins |
| `version:N` | our search with that version |
| `FILE.onnx` | our search with an exported file, evaluated in this process |
| `FILE.safetensors` | our search with a checkpoint, which the command exports to a temporary file |

A searching player takes a suffix with its own determinizations x simulations: `latest@1x15`. The suffix `@policy`
plays the likeliest action of the network's policy, without search: one evaluation a decision, on one drawn deal.

A server serves the versions of its policy, the latest two. A version that is not served, but whose file is in the
repository, is evaluated in this process. Making the server load it would change the configuration for all of its
clients, including self-play, and a killed match would leave the change behind.
"""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from clients.arena.bots import BOTS, PIMCBot
from clients.arena.match import BotPlayer, Player, SearchPlayer
from clients.connect import EvaluatorConfig, connect
from clients.errors import ModelNotFound
from clients.evaluator import Evaluator, evaluate
from mcts_ext.config import SearchConfig
from mcts_ext.contract import OBSERVATION_BYTES
from mcts_ext.errors import InvalidConfig
from mcts_ext.observe import observation
from mcts_ext.rules import Round

PLAYER_SEARCH: Final = SearchConfig(c_puct=1.0, q_scale=10.0).without_noise()
"""The search of a player in a match and at the table alike: the opponent you meet is the one that was measured."""

Kind = Literal["bot", "pimc", "ismcts", "ismcts-fair", "search-uniform", "latest", "version", "file"]
KNOWN: Final = (
    f"{', '.join(BOTS)}, pimc[:WORLDS], ismcts[:SIMULATIONS], ismcts-fair[:SIMULATIONS], search-uniform, latest, "
    "version:N, FILE.onnx or FILE.safetensors"
)
DEFAULT_NUMBERS: Final[Mapping[Kind, int]] = {"pimc": 50, "ismcts": 1000, "ismcts-fair": 1000}
"""Of the players `NAME:NUMBER`, if the number is left out."""


@dataclass(frozen=True)
class PlayerSpec:
    """Parsed player spec."""

    text: str
    kind: Kind
    number: int = 0
    """N of `version:N`, worlds of `pimc`, or simulations of OpenSpiel's ISMCTS."""
    path: Path = Path()
    """Path of a file."""
    search: tuple[int, int] | None = None
    """Determinizations and simulations of the suffix, if any."""

    @property
    def needs_server(self) -> bool:
        """Whether the player is a version of a served model."""
        return self.kind in ("latest", "version")

    @property
    def is_openspiel(self) -> bool:
        """Whether the player is a bot of OpenSpiel."""
        return self.kind in ("ismcts", "ismcts-fair")


def parse(text: str) -> PlayerSpec:
    """Parse a player spec.

    Raises:
        InvalidConfig: if it is malformed.
    """
    match = re.fullmatch(r"(.+?)(?:@(?:(\d+)x(\d+)|policy))?", text)
    if match is None:
        raise _unknown(text)
    word = match[1]
    search = (int(match[2]), int(match[3])) if match[2] else (1, 0) if text.endswith("@policy") else None
    name, _, number = word.partition(":")
    if word.endswith((".onnx", ".safetensors")):
        return PlayerSpec(text, "file", path=Path(word), search=search)
    if word == "search-uniform":
        return PlayerSpec(text, "search-uniform", search=search)
    if word == "latest":
        return PlayerSpec(text, "latest", search=search)
    if name == "version" and number.isdecimal():
        return PlayerSpec(text, "version", number=int(number), search=search)
    if search is not None:
        raise InvalidConfig(
            f"expected the suffix @DxK or @policy only for a player that searches, got {text}; leave out the suffix"
        )
    if word in BOTS:
        return PlayerSpec(text, "bot")
    for kind, default in DEFAULT_NUMBERS.items():
        if name == kind and (word == name or number.isdecimal()):
            return PlayerSpec(text, kind, number=int(number or default))
    raise _unknown(text)


class Networks:
    """Opens the evaluators of players; equal networks share one.

    Args:
        server: Triton server and model, for players that need one.
        repository: model repository, for versions that the server does not serve.
        exported: exported ONNX file by checkpoint.
        stack: closes the evaluators.
        on_event: called with one line about each network and each event of its server.
    """

    def __init__(
        self,
        server: EvaluatorConfig,
        *,
        repository: Path,
        exported: Mapping[Path, Path],
        stack: ExitStack,
        on_event: Callable[[str], None],
    ) -> None:
        self._server = server
        self._repository = repository
        self._exported = exported
        self._stack = stack
        self._on_event = on_event
        self._opened: dict[EvaluatorConfig, Evaluator] = {}

    def open(self, spec: PlayerSpec) -> tuple[Evaluator, str]:
        """Return the evaluator of a searching player and its description.

        Raises:
            EvaluatorError: if it cannot be opened; ModelNotFound if there is no such version or file.
        """
        if spec.kind == "search-uniform":
            return self._once(EvaluatorConfig(kind="uniform")), ""
        if spec.kind == "file":
            return self._file(self._exported.get(spec.path, spec.path)), str(spec.path)
        version = self._latest() if spec.kind == "latest" else spec.number
        try:
            return self._once(replace(self._server, model_version=str(version))), f"version {version}"
        except ModelNotFound:
            path = self._repository / self._server.model / str(version) / "model.onnx"
            if not path.is_file():
                raise
            self._on_event(f"version {version} is not served at {self._server.url}; evaluating {path} here")
            return self._file(path), str(path)

    def _latest(self) -> int:
        """Return the latest served version, which is then used for the whole match."""
        row = np.frombuffer(observation(Round.deal(4, 5, 0, None, 0)), dtype=np.uint8).reshape(1, OBSERVATION_BYTES)
        with connect(self._server, on_event=self._on_event) as evaluator:
            return evaluate(evaluator, row).model_version

    def _file(self, path: Path) -> Evaluator:
        n_cores = len(os.sched_getaffinity(0))
        return self._once(EvaluatorConfig(kind="local", model_path=str(path), threads=n_cores))

    def _once(self, config: EvaluatorConfig) -> Evaluator:
        if config not in self._opened:
            self._opened[config] = self._stack.enter_context(connect(config, on_event=self._on_event))
        return self._opened[config]


def open_player(spec: PlayerSpec, *, search: SearchConfig, networks: Networks) -> Player:
    """Create a player. `search` applies unless the spec has its own numbers.

    Raises:
        InvalidConfig: if a search is out of range. EvaluatorError: see `Networks.open`.
    """
    if spec.kind == "bot":
        return BotPlayer(spec.text, BOTS[spec.text]())
    if spec.kind == "pimc":
        return BotPlayer(spec.text, PIMCBot(spec.number), f"{spec.number} worlds")
    if spec.is_openspiel:
        from clients.arena.ismcts import FairISMCTSBot, ISMCTSBot  # OpenSpiel is an optional dependency

        bot = ISMCTSBot(spec.number) if spec.kind == "ismcts" else FairISMCTSBot(spec.number)
        return BotPlayer(spec.text, bot, f"OpenSpiel, {spec.number} simulations")
    determinizations, simulations = spec.search or (search.determinizations, search.simulations)
    search = replace(search, determinizations=determinizations, simulations=simulations)
    if not simulations:
        search = replace(search, even_root=False, candidates=0)
    evaluator, what = networks.open(spec)
    size = f"{determinizations} x {simulations}" if simulations else "without search"
    return SearchPlayer(spec.text, search, evaluator, f"{what}, {size}".removeprefix(", "))


def _unknown(text: str) -> InvalidConfig:
    return InvalidConfig(f"expected a player of {KNOWN}, got {text}")
