# SPDX-License-Identifier: Apache-2.0
"""The space of settings: a setting has a value for every name below; half of it is a server's `config.pbtxt`.

| name | of | values |
| --- | --- | --- |
| delay_us | server | `max_queue_delay_microseconds` |
| preferred | server | `preferred_batch_size`: sizes separated by commas, or none |
| instances | server | instances of the model |
| threads | server | threads per instance (0: cores shared among them), if the configuration has that parameter |
| rows, in_flight | load generator | rows per request, requests in flight |
| workers, games, groups | self-play | processes, concurrent rounds per group, groups per process |
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from google.protobuf import json_format, text_format
from google.protobuf.message import Message
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from clients.files import read_small, reason
from clients.selfplay.sizing import choose_size
from clients.triton.protocol import model_config_pb2
from mcts_ext.errors import BlobError

Setting = Mapping[str, int | str]

PREFERRED: Final = ("none", "64", "128", "256", "512", "256,512")
LONGEST_DELAY_US: Final = 2000
DEFAULT_LOAD: Final[Mapping[str, int]] = {"rows": 256, "in_flight": 8}
ROWS: Final = (64, 128, 256, 512, 1024)
GAMES_PER_GROUP: Final = (64, 128, 256, 512)
THREADS: Final = "threads"
"""Parameter of our backends."""


class UnreadableConfig(BlobError):
    """A config.pbtxt cannot be read or tuned."""


@dataclass(frozen=True)
class Space:
    """All settings of one objective on one machine."""

    distributions: dict[str, BaseDistribution]
    default: dict[str, int | str]
    """Setting of the given configuration and of the clients' defaults."""
    guesses: Sequence[dict[str, int | str]]
    """Settings to try first."""

    def to_json(self) -> dict[str, Any]:
        """Return the values and the default of each name."""
        return {
            name: {"default": self.default[name], **json.loads(optuna.distributions.distribution_to_json(values))}
            for name, values in self.distributions.items()
        }


def read_config(path: Path) -> Any:
    """Read a `config.pbtxt` as a message of Triton's `model_config.proto`.

    Raises:
        UnreadableConfig: if it is missing or invalid.
    """
    try:
        return text_format.Parse(read_small(path).decode(), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise UnreadableConfig(
            f"expected a model configuration at {path}, got {reason(error)}; run blobzero doctor"
        ) from error


def space_of(objective: str, config: Any) -> Space:
    """Return the space around a configuration; raises `UnreadableConfig` if it cannot be tuned."""
    cores = len(os.sched_getaffinity(0))
    batching, largest = config.dynamic_batching, max(1, config.max_batch_size)
    if len(config.instance_group) > 1:
        raise UnreadableConfig(f"expected one instance_group, got {len(config.instance_group)}; tune them by hand")
    on_gpu = any(group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU for group in config.instance_group)
    default: dict[str, int | str] = {
        "delay_us": int(batching.max_queue_delay_microseconds),
        "preferred": ",".join(map(str, batching.preferred_batch_size)) or "none",
        "instances": sum(group.count or 1 for group in config.instance_group) or 1,
    }
    sizes = [text for text in PREFERRED if text == "none" or max(map(int, text.split(","))) <= largest]
    distributions: dict[str, BaseDistribution] = {
        "delay_us": IntDistribution(0, max(LONGEST_DELAY_US, int(default["delay_us"])), step=1),
        "preferred": CategoricalDistribution(list(dict.fromkeys([*sizes, str(default["preferred"])]))),
        "instances": IntDistribution(1, max(2 * cores, int(default["instances"]))),
    }
    if THREADS in config.parameters:  # our own backends, which compute on the CPU
        text = config.parameters[THREADS].string_value
        if not text.isdecimal():
            raise UnreadableConfig(f"expected the parameter {THREADS} to be a whole number, got {text!r}; correct it")
        default[THREADS] = int(text)
        distributions[THREADS] = IntDistribution(0, max(cores, int(text)))
    if objective == "rows":
        default |= {**DEFAULT_LOAD, "rows": min(DEFAULT_LOAD["rows"], largest)}
        rows = {int(default["rows"]), *(n for n in ROWS if n <= largest)}
        distributions["rows"] = CategoricalDistribution(sorted(rows))
        distributions["in_flight"] = CategoricalDistribution([2, 4, 8, 16, 32])
    else:
        size = choose_size("auto", "auto", "auto", network_is_here=not on_gpu)
        default |= {"workers": size.workers, "games": size.games // size.groups, "groups": size.groups}
        distributions["workers"] = IntDistribution(1, max(cores, size.workers))
        distributions["games"] = CategoricalDistribution(sorted({*GAMES_PER_GROUP, size.games // size.groups}))
        distributions["groups"] = IntDistribution(1, max(6, size.groups))
    guesses: list[dict[str, int | str]] = [
        {"instances": 1}, {"instances": cores, THREADS: 1}, {"delay_us": 300}, {"preferred": sizes[-1]}
    ]  # fmt: skip
    return Space(
        distributions, default, [{name: guess.get(name, default[name]) for name in default} for guess in guesses]
    )


def apply(config: Any, setting: Setting) -> Any:
    """Return a copy of a configuration with the server's half of a setting."""
    copy = model_config_pb2.ModelConfig()
    copy.CopyFrom(config)
    batching = copy.dynamic_batching
    batching.SetInParent()
    batching.max_queue_delay_microseconds = int(setting["delay_us"])
    del batching.preferred_batch_size[:]
    if setting["preferred"] != "none":
        batching.preferred_batch_size.extend(map(int, str(setting["preferred"]).split(",")))
    group = copy.instance_group[0] if copy.instance_group else copy.instance_group.add()
    group.count = int(setting["instances"])
    if THREADS in setting:
        copy.parameters[THREADS].string_value = str(setting[THREADS])
    return copy


def as_json(config: Message) -> str:
    """Return a configuration in the form of the control API."""
    return str(json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None))


def as_text(config: Message) -> str:
    """Return a configuration in the form of `config.pbtxt`."""
    return str(text_format.MessageToString(config))


def client_flags(setting: Setting) -> str:
    """Return the command with the clients' half of a setting."""
    if "rows" in setting:
        return f"blobzero loadtest --rows {setting['rows']} --concurrency {setting['in_flight']}"
    games = int(setting["games"]) * int(setting["groups"])
    return f"blobzero selfplay --workers {setting['workers']} --games {games} --groups {setting['groups']}"
