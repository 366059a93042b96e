# SPDX-License-Identifier: Apache-2.0
"""The flags of a search, which every command that searches has."""

from dataclasses import dataclass, fields
from typing import Any

from mcts_ext.config import SearchConfig


@dataclass(frozen=True, kw_only=True)
class SearchFlags:
    """Flags by the names of SearchConfig. A command that wants another default or text declares the flag again.

    A command inherits from this first and from what stands before it in `--help` second: dataclasses list the fields
    of the last base first.
    """

    determinizations: int = 3
    """Deals searched for each decision."""
    simulations: int = 30
    """Simulations in each of them."""
    candidates: int = 0
    """Deals drawn for each decision, of which those are searched that fit best what the others have bid and played; 0:
    the first ones drawn."""
    c_puct: float = 1.5
    """Weight of the network's prior against the values found."""
    even_root: bool = False
    """Visit the actions at the root equally often; for many determinizations with as many simulations as actions."""
    q_scale: float = 0.0
    """Play the largest of log prior + q_scale * Q; 0: the most visited."""

    def search(self) -> SearchConfig:
        """The search that the flags ask for.

        Raises:
            InvalidConfig: a flag out of range.
        """
        return SearchConfig(**{name: getattr(self, name) for name in self._names()})

    @classmethod
    def typed(cls, search: SearchConfig) -> list[str]:
        """The same as they are typed."""
        typed = []
        for name, value in cls.of(search).items():
            flag = name.replace("_", "-")
            typed += (
                [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
            )
        return typed

    @classmethod
    def of(cls, search: SearchConfig) -> dict[str, Any]:
        """The flags that ask for a search, as far as the command has them."""
        return {name: getattr(search, name) for name in cls._names()}

    @classmethod
    def _names(cls) -> list[str]:
        known = {field.name for field in fields(SearchConfig)}
        return [field.name for field in fields(cls) if field.name in known]


@dataclass(frozen=True, kw_only=True)
class PlayerFlags(SearchFlags):
    """The search of a player, in a match and at the table alike: who is met is who was measured."""

    c_puct: float = 1.0
    """Weight of the network's prior against the values found."""
    q_scale: float = 10.0
    """Play the largest of log prior + q_scale * Q; 0: the most visited."""
