# SPDX-License-Identifier: Apache-2.0
"""Positions for parity checks and int8 calibration. Axes: `n` rows, `F` bytes of an observation."""

from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.selfplay.records import ShardError, read_shard
from export.errors import InvalidPositions
from mcts_ext.contract import MAX_HAND, N_CARDS_IN_DECK, N_SEATS, OBSERVATION_BYTES
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from training.shards import find_shards

DATA: Final = Path("data")
"""Folder in which `blobzero selfplay` writes its runs."""
N_PARITY_ROWS: Final = 4096
N_CALIBRATION_ROWS: Final = 1024
SEED: Final = 20
READ_PER_DRAWN: Final = 4
"""Number of distinct positions read per position drawn, because the positions of a shard come from few rounds."""


def export_positions(records: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
    """Draw `[n, F]` positions for parity checks, others for the calibration of int8, and describe their origin.

    If there are too few records, calibration gets positions of random rounds first. Raises as `recorded_rows`.
    """
    rows, origin = recorded_rows(records, N_PARITY_ROWS + N_CALIBRATION_ROWS, seed=SEED)
    return rows[:N_PARITY_ROWS], rows[N_PARITY_ROWS:], origin


def recorded_rows(records: Path | None, n: int, *, seed: int) -> tuple[NDArray[np.uint8], str]:
    """Draw `[n, F]` distinct recorded positions; return them with a description of their origin.

    Args:
        records: folder of a run, or of several runs; None for the newest run under `data/`.
        n: number of positions; if there are fewer, positions of random rounds are added.
        seed: seed of the draw.

    Raises:
        InvalidPositions: if `records` contains no usable shard. Unusable shards are skipped and mentioned in the
            description.
    """
    folder = DATA if records is None else records
    shards = find_shards([folder])
    if records is not None and not shards:
        raise InvalidPositions(
            f"expected shards of records under {records}, got none; record some (blobzero selfplay), or choose another"
        )
    if records is None and shards:
        newest = shards[-1].parent
        shards, folder = [path for path in shards if path.parent == newest], newest.parent
        if folder.is_relative_to(here := Path.cwd()):
            folder = folder.relative_to(here)
    random = np.random.default_rng(seed)
    recorded = np.zeros((0, OBSERVATION_BYTES), np.uint8)
    skipped: list[str] = []
    for i in random.permutation(len(shards)):
        try:
            rows = read_shard(shards[i], ["observation"]).columns["observation"]
        except ShardError as error:
            skipped.append(str(error))
            continue
        recorded = np.unique(np.concatenate([recorded, rows]), axis=0)
        if len(recorded) >= READ_PER_DRAWN * n:
            break
    if records is not None and not len(recorded):
        raise InvalidPositions(
            f"expected a usable shard of records under {records}, got {len(shards)} unusable ones "
            f"(the first: {skipped[0]}); choose another run"
        )
    drawn = random.permutation(recorded)[:n]
    n_drawn = len(drawn)
    while len(drawn) < n:
        more = sample_rows(2 * (n - len(drawn)), seed=int(random.integers(2**32)))
        drawn = _distinct(np.concatenate([drawn, more]))[:n]
    note = f" ({len(skipped)} shards skipped, the first: {skipped[0]})" if skipped else ""
    if n_drawn == n:
        return drawn, f"{n:,} recorded in {folder}{note}"
    if n_drawn == 0:
        return drawn, f"{n:,} of random rounds, since {folder} has no records{note}"
    return drawn, f"{n_drawn:,} recorded in {folder}, which has no more, and {n - n_drawn:,} of random rounds{note}"


def _distinct(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the distinct rows in order of first appearance."""
    first = np.unique(rows, axis=0, return_index=True)[1]
    return rows[np.sort(first)]


def sample_rows(n: int, *, seed: int) -> NDArray[np.uint8]:
    """Return `[n, F]` positions, every third on average, of random rounds of all sizes, some within a game."""
    random = Random(seed)
    rows: list[bytes] = []
    while len(rows) < n:
        table = _deal(random)
        while not table.is_over:
            if random.randrange(3) == 0:
                rows.append(observation(table))
            table.apply(random.choice(table.legal_actions()))
    return np.frombuffer(b"".join(rows[:n]), np.uint8).reshape(n, OBSERVATION_BYTES).copy()


def _deal(random: Random) -> Round:
    n_players = random.randint(3, N_SEATS)
    n_cards = random.randint(1, min(MAX_HAND, N_CARDS_IN_DECK // n_players))
    deck = random.sample(range(N_CARDS_IN_DECK), n_players * n_cards)
    in_game = random.randrange(2) == 0
    return Round(
        [deck[seat::n_players] for seat in range(n_players)],
        dealer=random.randrange(n_players),
        trump=random.choice((0, 1, 2, 3, None)),
        totals=[random.randrange(400) for _ in range(n_players)] if in_game else None,
        game_round=random.randrange(12) if in_game else 0,
        start_cards=n_cards if in_game else 0,
    )
