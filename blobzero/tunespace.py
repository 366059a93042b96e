# SPDX-License-Identifier: Apache-2.0
"""What may be tuned: a setting is a value for every name below, and half of it is a server's `config.pbtxt`.

| name | of | values |
| --- | --- | --- |
| delay_us | server | `max_queue_delay_microseconds` |
| preferred | server | `preferred_batch_size`: sizes with commas between, or none |
| instances, threads | server | instances of the model, and threads of each (0: cores shared among them) |
| rows, in_flight | load generator | rows of a request, requests in flight |
| workers, games, groups | self-play | processes, rounds side by side in each, batches in flight of each |
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from google.protobuf import json_format, text_format
from google.protobuf.message import Message

from clients.channel import CHANNEL_OPTIONS as _  # noqa: F401  (sets how gRPC loads)
from clients.sizing import choose_size
from mcts_ext.errors import BlobError

from tritonclient.grpc import model_config_pb2  # isort: skip  (clients.channel is first)

Setting = Mapping[str, int | str]

PREFERRED: Final = ("none", "64", "128", "256", "512", "256,512")
LONGEST_DELAY_US: Final = 2000
DEFAULT_LOAD: Final[Mapping[str, int]] = {"rows": 256, "in_flight": 8}
GAMES_PER_GROUP: Final = (64, 128, 256, 512)


class UnreadableConfig(BlobError):
    """A config.pbtxt that cannot be read."""


@dataclass(frozen=True)
class Space:
    """All settings of one objective on one machine."""

    distributions: dict[str, optuna.distributions.BaseDistribution]
    default: dict[str, int | str]
    """What `blobzero serve` and the clients do unless told otherwise."""
    guesses: tuple[dict[str, int | str], ...]
    """Settings worth trying first."""


def read_config(path: Path) -> Any:
    """A `config.pbtxt` as a message of Triton's `model_config.proto`.

    Raises:
        UnreadableConfig: it is not there, or no configuration.
    """
    try:
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise UnreadableConfig(f"expected a model configuration at {path}, got {error}; blobzero doctor") from error


def space_of(objective: str, config: Any) -> Space:
    """The space around the configuration of a repository."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    cores = len(os.sched_getaffinity(0))
    batching = config.dynamic_batching
    own: dict[str, int | str] = {
        "delay_us": int(batching.max_queue_delay_microseconds),
        "preferred": ",".join(map(str, batching.preferred_batch_size)) or "none",
        "instances": sum(group.count or 1 for group in config.instance_group) or 1,
        "threads": int(config.parameters["threads"].string_value or 0) if "threads" in config.parameters else 0,
    }
    sizes = [one for one in PREFERRED if one == "none" or max(map(int, one.split(","))) <= config.max_batch_size]
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        "delay_us": IntDistribution(0, max(LONGEST_DELAY_US, int(own["delay_us"])), step=1),
        "preferred": CategoricalDistribution(list(dict.fromkeys([*sizes, str(own["preferred"])]))),
        "instances": IntDistribution(1, max(2 * cores, int(own["instances"]))),
        "threads": IntDistribution(0, max(cores, int(own["threads"]))),
    }
    if objective == "rows":
        own |= DEFAULT_LOAD
        distributions["rows"] = CategoricalDistribution([64, 128, 256, 512, 1024])
        distributions["in_flight"] = CategoricalDistribution([2, 4, 8, 16, 32])
    else:
        size = choose_size("auto", "auto", "auto", network_is_here=True)
        own |= {"workers": size.workers, "games": size.games // size.groups, "groups": size.groups}
        distributions["workers"] = IntDistribution(1, max(cores, size.workers))
        distributions["games"] = CategoricalDistribution(sorted({*GAMES_PER_GROUP, size.games // size.groups}))
        distributions["groups"] = IntDistribution(1, max(6, size.groups))
    guesses = ({"instances": 1}, {"instances": cores, "threads": 1}, {"delay_us": 300}, {"preferred": "512"})
    return Space(distributions, own, tuple({**own, **one} for one in guesses))


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
    kept = changed.instance_group[0] if changed.instance_group else None
    kind = model_config_pb2.ModelInstanceGroup.KIND_CPU if kept is None else kept.kind
    del changed.instance_group[:]
    changed.instance_group.add(count=int(setting["instances"]), kind=kind)
    changed.parameters["threads"].string_value = str(setting["threads"])
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
