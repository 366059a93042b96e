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

A searching player takes a suffix with its own determinizations x simulations: `latest@1x15`.

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
from clients.errors import ModelNotFound
from clients.evaluator import Evaluator, UniformEvaluator, evaluate
from mcts_ext.config import SearchConfig
from mcts_ext.contract import MODEL_NAME, OBSERVATION_BYTES
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


@dataclass(frozen=True)
class NetworkSource:
    """Sources of the players' networks."""

    url: str = ""
    """HOST:PORT of a Triton server, if a player needs one."""
    model: str = MODEL_NAME
    repository: Path = Path("model_repo")
    """Model repository, for versions that the server does not serve."""
    exported: Mapping[Path, Path] | None = None
    """Exported ONNX file by checkpoint."""
    server_timeout_s: float = 60.0


def parse(text: str) -> PlayerSpec:
    """Parse a player spec.

    Raises:
        InvalidConfig: if it is malformed.
    """
    match = re.fullmatch(r"(.+?)(?:@(\d+)x(\d+))?", text)
    if match is None:
        raise _unknown(text)
    word, search = match[1], (int(match[2]), int(match[3])) if match[2] else None
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
            f"expected the suffix @DxS only for a player that searches, got {text}; leave out the suffix"
        )
    if word in BOTS:
        return PlayerSpec(text, "bot")
    for kind, default in DEFAULT_NUMBERS.items():
        if name == kind and (word == name or number.isdecimal()):
            return PlayerSpec(text, kind, number=int(number or default))
    raise _unknown(text)


def open_players(
    specs: list[PlayerSpec],
    *,
    search: SearchConfig,
    source: NetworkSource,
    stack: ExitStack,
    on_event: Callable[[str], None],
) -> list[Player]:
    """Create the players; their evaluators are closed with `stack`.

    Args:
        specs: one per player; equal networks share an evaluator.
        search: default search of the players that search; its noise is turned off.
        on_event: called with one line about each network and each event of its server.

    Raises:
        InvalidConfig: if a search is out of range. ModelNotFound: if a version or file does not exist.
        OpenSpielMissing, EvaluatorError: see there.
    """
    opened = _Networks(source, stack, on_event)
    return [_open(spec, search, opened) for spec in specs]


def _open(spec: PlayerSpec, search: SearchConfig, networks: "_Networks") -> Player:
    if spec.kind == "bot":
        return BotPlayer(spec.text, BOTS[spec.text]())
    if spec.kind == "pimc":
        return BotPlayer(spec.text, PIMCBot(spec.number), f"{spec.number} worlds")
    if spec.is_openspiel:
        from clients.arena.ismcts import FairISMCTSBot, ISMCTSBot  # OpenSpiel is an optional dependency

        bot = ISMCTSBot(spec.number) if spec.kind == "ismcts" else FairISMCTSBot(spec.number)
        return BotPlayer(spec.text, bot, f"OpenSpiel, {spec.number} simulations")
    if spec.search is not None:
        search = replace(search, determinizations=spec.search[0], simulations=spec.search[1])
    evaluator, what = networks.open(spec)
    return SearchPlayer(
        spec.text, search, evaluator, f"{what}, {search.determinizations} x {search.simulations}".removeprefix(", ")
    )


class _Networks:
    """Cache of opened evaluators."""

    def __init__(self, source: NetworkSource, stack: ExitStack, on_event: Callable[[str], None]) -> None:
        self._source = source
        self._stack = stack
        self._on_event = on_event
        self._opened: dict[str, Evaluator] = {}

    def open(self, spec: PlayerSpec) -> tuple[Evaluator, str]:
        """Return the evaluator of a searching player and its description."""
        if spec.kind == "search-uniform":
            return self._once("", UniformEvaluator), ""
        if spec.kind == "file":
            return self._file((self._source.exported or {}).get(spec.path, spec.path)), str(spec.path)
        if spec.kind == "latest":
            version = self._latest()
            return self._version(version), f"version {version}"
        try:
            return self._version(spec.number), f"version {spec.number}"
        except ModelNotFound:
            path = self._source.repository / self._source.model / str(spec.number) / "model.onnx"
            if not path.is_file():
                raise
            self._on_event(f"version {spec.number} is not served at {self._source.url}; evaluating {path} here")
            return self._file(path), f"{path}"

    def _latest(self) -> int:
        """Return the latest served version, which is then used for the whole match."""
        table = Round.deal(4, 5, 0, None, 0)
        row = np.frombuffer(observation(table), dtype=np.uint8).reshape(1, OBSERVATION_BYTES)
        with self._triton("") as evaluator:
            return evaluate(evaluator, row).model_version

    def _version(self, version: int) -> Evaluator:
        return self._once(f"version {version}", lambda: self._triton(str(version)))

    def _file(self, path: Path) -> Evaluator:
        from clients.local import LocalEvaluator

        n_cores = len(os.sched_getaffinity(0))
        return self._once(str(path), lambda: LocalEvaluator(path, threads=n_cores, on_event=self._on_event))

    def _triton(self, version: str) -> Evaluator:
        from clients.triton.evaluator import TritonEvaluator

        return TritonEvaluator(
            self._source.url,
            model=self._source.model,
            model_version=version,
            server_timeout_s=self._source.server_timeout_s,
            on_event=self._on_event,
        )

    def _once(self, key: str, factory: Callable[[], Evaluator]) -> Evaluator:
        if key not in self._opened:
            self._opened[key] = self._stack.enter_context(factory())
        return self._opened[key]


def _unknown(text: str) -> InvalidConfig:
    return InvalidConfig(f"expected a player of {KNOWN}, got {text}")
