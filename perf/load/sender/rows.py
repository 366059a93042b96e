# SPDX-License-Identifier: Apache-2.0
"""Rows of the requests: positions from a search or from records, and their number per request.

A process makes its requests once and sends them in rotation, so a request costs the client no more than its sending.
`request_sizes.json` holds the quantiles of the sizes of self-play's requests; docs/loadtest.md says how it was made.
"""

import json
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.evaluator import HashEvaluator, evaluate
from export.positions import recorded_rows
from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.errors import InvalidConfig
from mcts_ext.pool import SelfPlayPool
from perf.load.plan import Traffic

N_REQUESTS: Final = 64
"""Number of different requests per process."""
N_POSITIONS: Final = 8192
SIZES: Final = Path(__file__).with_name("request_sizes.json")


def make_requests(traffic: Traffic, *, max_batch_size: int, index: int) -> list[NDArray[np.uint8]]:
    """Return the rows `[B, F]` of each request of process `index`.

    Raises:
        InvalidConfig: if a request would exceed the model's batch size.
        InvalidPositions: if there are no recorded positions.
    """
    rng = np.random.default_rng((1, traffic.seed, index))  # stream 2 draws the arrivals
    sizes = request_sizes(traffic, max_batch_size, rng)
    seed = traffic.seed + index
    if traffic.data == "positions":
        positions = search_positions(seed)
    else:
        positions = recorded_rows(Path(traffic.data), N_POSITIONS, seed=seed)[0]
    starts = rng.integers(0, len(positions), len(sizes))
    return [np.take(positions, np.arange(at, at + n), 0, mode="wrap") for at, n in zip(starts, sizes, strict=True)]


def request_sizes(traffic: Traffic, max_batch_size: int, rng: np.random.Generator) -> list[int]:
    """Return the rows of each of `N_REQUESTS` requests; drawn sizes are evenly spaced quantiles in random order."""
    if traffic.rows != "selfplay":
        if traffic.rows > max_batch_size:
            raise InvalidConfig(f"expected at most {max_batch_size} rows for this model, got {traffic.rows}")
        return [traffic.rows] * N_REQUESTS
    quantiles = np.array(json.loads(SIZES.read_text())["quantiles"])
    at = (np.arange(N_REQUESTS) + 0.5) / N_REQUESTS * (len(quantiles) - 1)
    sizes = np.rint(np.interp(at, np.arange(len(quantiles)), quantiles)).astype(int)
    return [int(n) for n in rng.permutation(np.clip(sizes, 1, max_batch_size))]


def search_positions(seed: int) -> NDArray[np.uint8]:
    """Return the positions `[n, F]` that self-play evaluates, with a pseudo-random network."""
    games = 256
    pool = SelfPlayPool(
        range(games * 4), seed=seed, deal=DealConfig(), search=SearchConfig(), n_games=games, n_groups=1
    )  # fmt: skip
    found: list[NDArray[np.uint8]] = []
    with HashEvaluator() as network:
        while sum(map(len, found)) < N_POSITIONS and pool.collect(0):
            found.append(pool.observations(0).copy())
            answer = evaluate(network, found[-1])
            pool.apply(0, answer.logits, answer.values, model_version=0)
    return np.concatenate(found)
