# SPDX-License-Identifier: Apache-2.0
"""Command lines that a command proposes as the next step."""

import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console


def command_line(verb: str, config: Any) -> str:
    """Return `blobzero VERB` with the flags of all fields that differ from their defaults, without --json.

    Args:
        config: a dataclass of flags for tyro.
    """
    return shlex.join(["blobzero", verb, *flags(config)])


def flags(config: Any, default: Any = None) -> list[str]:
    """The flags of all fields that differ from `default`, a configuration of the same type, or from the fields' own."""
    words = []
    for field in fields(config):
        value = getattr(config, field.name)
        usual = field.default if default is None else getattr(default, field.name)
        if field.name == "json" or value == usual:
            continue
        name = field.name.replace("_", "-")
        if is_dataclass(value):  # a group of flags
            words += flags(value, usual if is_dataclass(usual) else None)
        elif isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", *map(_word, value if isinstance(value, tuple) else (value,))]
    return words


def propose(console: Console, *commands: str) -> None:
    """Print the command that comes next, or the choice of several."""
    console.print(f"next     {'   or   '.join(commands)}")


def quoted(path: Path) -> str:
    """Return a path quoted for a shell."""
    return shlex.quote(str(path))


def in_repository(path: Path) -> str:
    """Return the flag of a non-default model repository with a leading blank, else an empty string."""
    return "" if path == Path("model_repo") else f" --repository {quoted(path)}"


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
