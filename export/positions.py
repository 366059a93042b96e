# SPDX-License-Identifier: Apache-2.0
"""Positions to compare and calibrate with. Axes: `n` rows, `F` = 96 bytes."""

from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clients.selfplay.records import ShardError, read_observations
from export.errors import InvalidPositions
from mcts_ext.contract import MAX_HAND, N_CARDS_IN_DECK, N_SEATS, OBSERVATION_BYTES
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from training.shards import find_shards

DATA: Final = Path("data")
"""Where `blobzero selfplay` leaves its runs."""
N_PARITY_ROWS: Final = 4096
N_CALIBRATION_ROWS: Final = 1024
SEED: Final = 20
READ_PER_DRAWN: Final = 4
"""How many different positions are read for one that is drawn: those of one shard are of few rounds."""


class Positions(NamedTuple):
    """What an export is measured with."""

    parity: NDArray[np.uint8]
    """`[n, F]` to compare answers on."""
    calibration: NDArray[np.uint8]
    """`[n, F]` others, to fix the ranges of int8."""
    origin: str
    """Where they come from, in words."""


def export_positions(records: Path | None) -> Positions:
    """Draw the positions of an export; where the records run short, it is calibration that gets random rounds first.

    Raises:
        As `recorded_rows`.
    """
    rows, origin = recorded_rows(records, N_PARITY_ROWS + N_CALIBRATION_ROWS, seed=SEED)
    return Positions(rows[:N_PARITY_ROWS], rows[N_PARITY_ROWS:], origin)


def recorded_rows(records: Path | None, n: int, *, seed: int) -> tuple[NDArray[np.uint8], str]:
    """Draw `[n, F]` different positions of recorded play, and say where they come from.

    Args:
        records: a run's folder, or one of several runs; None for the newest run under `data/`.
        n: where there are fewer, positions of random rounds follow them.
        seed: which are drawn.

    Raises:
        InvalidPositions: `records` holds no shard that can be used. One that can't, beside others, is left out, and
            told of in the words.
    """
    folder = DATA if records is None else records
    shards = find_shards([folder])
    if records is not None and not shards:
        raise InvalidPositions(
            f"expected shards of records under {records}, got none; play some (blobzero selfplay), or name another run"
        )
    if records is None and shards:
        newest = shards[-1].parent
        shards, folder = [path for path in shards if path.parent == newest], newest.parent
        if folder.is_relative_to(here := Path.cwd()):
            folder = folder.relative_to(here)
    random = np.random.default_rng(seed)
    recorded = np.zeros((0, OBSERVATION_BYTES), np.uint8)
    left_out: list[str] = []
    for i in random.permutation(len(shards)):
        try:
            rows = read_observations(shards[i])
        except ShardError as error:
            left_out.append(str(error))
            continue
        recorded = np.unique(np.concatenate([recorded, rows]), axis=0)
        if len(recorded) >= READ_PER_DRAWN * n:
            break
    if records is not None and not len(recorded):
        raise InvalidPositions(
            f"expected a shard of records that can be used under {records}, got {len(shards)} that can't "
            f"(the first: {left_out[0]}); name another run"
        )
    drawn = random.permutation(recorded)[:n]
    n_drawn = len(drawn)
    while len(drawn) < n:
        more = sample_rows(2 * (n - len(drawn)), seed=int(random.integers(2**32)))
        drawn = _distinct(np.concatenate([drawn, more]))[:n]
    told = f" ({len(left_out)} shards left out, the first: {left_out[0]})" if left_out else ""
    if n_drawn == n:
        return drawn, f"{n:,} recorded in {folder}{told}"
    if n_drawn == 0:
        return drawn, f"{n:,} of random rounds, for {folder} holds no records{told}"
    return drawn, f"{n_drawn:,} recorded in {folder}, which holds no more, and {n - n_drawn:,} of random rounds{told}"


def _distinct(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each row once, in order of first appearance."""
    first = np.unique(rows, axis=0, return_index=True)[1]
    return rows[np.sort(first)]


def sample_rows(n: int, *, seed: int) -> NDArray[np.uint8]:
    """`[n, F]` real positions: every third on average of rounds of all sizes, some inside a game, played at random."""
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
