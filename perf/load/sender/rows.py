# SPDX-License-Identifier: Apache-2.0
"""What requests carry: rows of positions, recorded or met in a search, or random ones; and how many in each.

A process makes its requests once and sends them round and round: what a request then costs the client is what sending
costs. `request_sizes.json` holds the sizes that self-play sends, as quantiles; docs/loadtest.md says how it was made.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.evaluator import HashEvaluator
from clients.selfplay.records import read_shard, shard_paths
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.contract import OBSERVATION_BYTES
from mcts_ext.errors import InvalidConfig
from mcts_ext.pool import SelfPlayPool
from perf.load.plan import LoadError, Traffic
from perf.load.sender.signature import Signature, Tensor

from tritonclient.utils import serialize_byte_tensor  # isort: skip  (clients.triton.channel sets how gRPC loads)

N_PAYLOADS: Final = 64
"""Different requests of a process, unless they are large."""
MOST_BYTES: Final = 64 << 20
N_POSITIONS: Final = 8192
SIZES: Final = Path(__file__).with_name("request_sizes.json")


@dataclass(frozen=True)
class Payload:
    """One request's tensors, in the order of the model's inputs, as bytes."""

    n_rows: int
    tensors: tuple[NDArray[np.uint8], ...]

    @property
    def n_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


def make_payloads(signature: Signature, traffic: Traffic, *, index: int) -> list[Payload]:
    """The requests of process `index`.

    Raises:
        LoadError: data or sizes that do not suit the model.
    """
    rng = np.random.default_rng((1, traffic.seed, index))  # 2 is of the arrivals: sizes and gaps are not alike
    sizes = request_sizes(signature, traffic, rng)
    data = traffic.data if traffic.data != "auto" else "positions" if signature.is_ours else "random"
    if data != "random" and not signature.is_ours:
        raise LoadError(
            f"expected a model that takes observation UINT8 [{OBSERVATION_BYTES}] to send positions to, got "
            f"{', '.join(f'{one.name} {one.datatype} {list(one.shape)}' for one in signature.inputs)}; --data random"
        )
    if data != "random":
        positions = search_positions(traffic.seed + index) if data == "positions" else recorded(Path(data), rng)
        starts = rng.integers(0, len(positions), len(sizes))
        rows = [np.take(positions, np.arange(at, at + n), 0, mode="wrap") for at, n in zip(starts, sizes, strict=True)]
        return [Payload(n, (one.reshape(-1),)) for n, one in zip(sizes, rows, strict=True)]
    payloads: list[Payload] = []
    n_bytes = 0
    for n in sizes:
        payloads.append(Payload(n, tuple(random_tensor(one, n, rng) for one in signature.inputs)))
        n_bytes += payloads[-1].n_bytes
        if n_bytes > MOST_BYTES:
            break
    return payloads


def request_sizes(signature: Signature, traffic: Traffic, rng: np.random.Generator) -> list[int]:
    """Rows of each of `N_PAYLOADS` requests; drawn ones stand for equal shares of the distribution, in random order."""
    if traffic.rows != "selfplay":
        if traffic.rows > signature.most_rows:
            raise InvalidConfig(f"expected at most {signature.most_rows} rows for this model, got {traffic.rows}")
        return [traffic.rows] * N_PAYLOADS
    quantiles = np.array(json.loads(SIZES.read_text())["quantiles"])
    at = (np.arange(N_PAYLOADS) + 0.5) / N_PAYLOADS * (len(quantiles) - 1)
    sizes = np.rint(np.interp(at, np.arange(len(quantiles)), quantiles)).astype(int)
    return [int(n) for n in rng.permutation(np.clip(sizes, 1, signature.most_rows))]


def search_positions(seed: int) -> NDArray[np.uint8]:
    """`[n, F]` positions that self-play's search asks about, with a stand-in for the network."""
    games = 256
    pool = SelfPlayPool(
        range(games * 4),
        seed=seed,
        deal=DealConfig(),
        search=SearchConfig(),
        n_games=games,
        n_groups=1,
    )
    found: list[NDArray[np.uint8]] = []
    with HashEvaluator() as network:
        while sum(map(len, found)) < N_POSITIONS and pool.collect(0):
            found.append(pool.observations(0).copy())
            network.submit(found[-1], tag=0)
            answer = network.wait()[1]
            pool.apply(0, answer.logits, answer.values, model_version=0)
    return np.concatenate(found)


def recorded(folder: Path, rng: np.random.Generator) -> NDArray[np.uint8]:
    """`[n, F]` positions out of the shards of a run, in random order."""
    paths = shard_paths(folder / "shards" if (folder / "shards").is_dir() else folder)
    if not paths:
        raise LoadError(f"expected shards of records in {folder}, got none; name a run's folder, positions or random")
    found: list[NDArray[np.uint8]] = []
    for i in rng.permutation(len(paths)):
        found.append(read_shard(paths[i], ["observation"]).columns["observation"])
        if sum(map(len, found)) >= N_POSITIONS:
            break
    rows = np.concatenate(found)
    if not len(rows):
        raise LoadError(f"expected positions in the shards of {folder}, got none; name another run's folder")
    return rng.permutation(rows)[:N_POSITIONS]


def random_tensor(tensor: Tensor, n_rows: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bytes of so many rows: 0 or 1 for whole numbers, which every table of embeddings has; 0 to 1 for others."""
    n = n_rows * (tensor.n_items or 0)
    if tensor.datatype == "BYTES":
        return np.frombuffer(serialize_byte_tensor(rng.integers(0, 1000, n).astype(np.bytes_)).item(), np.uint8)
    is_fraction = tensor.datatype.startswith(("FP", "BF"))
    found = rng.random(n, np.float32) if is_fraction else rng.integers(0, 2, n)
    return found.astype(tensor.dtype).view(np.uint8)
