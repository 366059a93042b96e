# SPDX-License-Identifier: Apache-2.0
"""What may be tuned: a setting is a value for every name below, and half of it is a server's `config.pbtxt`.

| name | of | values |
| --- | --- | --- |
| delay_us | server | `max_queue_delay_microseconds` |
| preferred | server | `preferred_batch_size`: sizes with commas between, or none |
| instances | server | instances of the model |
| threads | server | threads of each (0: cores shared among them), where the configuration has that parameter |
| rows, in_flight | load generator | rows of a request, requests in flight |
| workers, games, groups | self-play | processes, rounds side by side in each, batches in flight of each |
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
"""A parameter of our backends, and its name here."""


class UnreadableConfig(BlobError):
    """A config.pbtxt that cannot be read, or tuned."""


@dataclass(frozen=True)
class Space:
    """All settings of one objective on one machine."""

    distributions: dict[str, optuna.distributions.BaseDistribution]
    default: dict[str, int | str]
    """What `blobzero serve` and the clients do unless told otherwise."""
    guesses: Sequence[dict[str, int | str]]
    """Settings worth trying first."""

    def to_json(self) -> dict[str, Any]:
        """What is tried of each name, and its default."""
        return {
            name: {"default": self.default[name], **json.loads(optuna.distributions.distribution_to_json(one))}
            for name, one in self.distributions.items()
        }


def read_config(path: Path) -> Any:
    """A `config.pbtxt` as a message of Triton's `model_config.proto`.

    Raises:
        UnreadableConfig: it is not there, or no configuration.
    """
    try:
        return text_format.Parse(read_small(path).decode(), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise UnreadableConfig(
            f"expected a model configuration at {path}, got {reason(error)}; blobzero doctor"
        ) from error


def space_of(objective: str, config: Any) -> Space:
    """The space around the configuration of a repository; raises `UnreadableConfig` for one that cannot be tuned."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    cores = len(os.sched_getaffinity(0))
    batching, largest = config.dynamic_batching, max(1, config.max_batch_size)
    if len(config.instance_group) > 1:
        raise UnreadableConfig(f"expected one instance_group, got {len(config.instance_group)}; tune them by hand")
    on_gpu = any(group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU for group in config.instance_group)
    own: dict[str, int | str] = {
        "delay_us": int(batching.max_queue_delay_microseconds),
        "preferred": ",".join(map(str, batching.preferred_batch_size)) or "none",
        "instances": sum(group.count or 1 for group in config.instance_group) or 1,
    }
    sizes = [one for one in PREFERRED if one == "none" or max(map(int, one.split(","))) <= largest]
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        "delay_us": IntDistribution(0, max(LONGEST_DELAY_US, int(own["delay_us"])), step=1),
        "preferred": CategoricalDistribution(list(dict.fromkeys([*sizes, str(own["preferred"])]))),
        "instances": IntDistribution(1, max(2 * cores, int(own["instances"]))),
    }
    if THREADS in config.parameters:  # as our own backends have it, which compute on the processor
        text = config.parameters[THREADS].string_value
        if not text.isdecimal():
            raise UnreadableConfig(f"expected the parameter {THREADS} to be a whole number, got {text!r}; correct it")
        own[THREADS] = int(text)
        distributions[THREADS] = IntDistribution(0, max(cores, int(text)))
    if objective == "rows":
        own |= {**DEFAULT_LOAD, "rows": min(DEFAULT_LOAD["rows"], largest)}
        rows = {int(own["rows"]), *(one for one in ROWS if one <= largest)}
        distributions["rows"] = CategoricalDistribution(sorted(rows))
        distributions["in_flight"] = CategoricalDistribution([2, 4, 8, 16, 32])
    else:
        size = choose_size("auto", "auto", "auto", network_is_here=not on_gpu)
        own |= {"workers": size.workers, "games": size.games // size.groups, "groups": size.groups}
        distributions["workers"] = IntDistribution(1, max(cores, size.workers))
        distributions["games"] = CategoricalDistribution(sorted({*GAMES_PER_GROUP, size.games // size.groups}))
        distributions["groups"] = IntDistribution(1, max(6, size.groups))
    guesses: list[dict[str, int | str]] = [
        {"instances": 1}, {"instances": cores, THREADS: 1}, {"delay_us": 300}, {"preferred": sizes[-1]}
    ]  # fmt: skip
    return Space(distributions, own, [{name: one.get(name, own[name]) for name in own} for one in guesses])


def apply(config: Any, setting: Setting) -> Any:
    """A copy of a configuration with the server's half of a setting in it."""
    changed = model_config_pb2.ModelConfig()
    changed.CopyFrom(config)
    batching = changed.dynamic_batching
    batching.SetInParent()
    batching.max_queue_delay_microseconds = int(setting["delay_us"])
    del batching.preferred_batch_size[:]
    if setting["preferred"] != "none":
        batching.preferred_batch_size.extend(int(one) for one in str(setting["preferred"]).split(","))
    group = changed.instance_group[0] if changed.instance_group else changed.instance_group.add()
    group.count = int(setting["instances"])
    if THREADS in setting:
        changed.parameters[THREADS].string_value = str(setting[THREADS])
    return changed


def as_json(config: Message) -> str:
    """As the control API takes it."""
    return str(json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None))


def as_text(config: Message) -> str:
    """As it stands in a file."""
    return str(text_format.MessageToString(config))


def client_flags(setting: Setting) -> str:
    """The clients' half of a setting, as flags of the command that it is for."""
    if "rows" in setting:
        return f"blobzero loadtest --rows {setting['rows']} --concurrency {setting['in_flight']}"
    games = int(setting["games"]) * int(setting["groups"])
    return f"blobzero selfplay --workers {setting['workers']} --games {games} --groups {setting['groups']}"
