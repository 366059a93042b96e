# SPDX-License-Identifier: Apache-2.0
"""Workers and rounds side by side, chosen where nobody says."""

import pytest

from blobzero.sizing import MIN_GAMES, Auto, Size, choose_size


@pytest.mark.parametrize(
    ("workers", "games", "cores", "network_is_here", "size"),
    [
        ("auto", "auto", 2, True, Size(1, 1024)),
        ("auto", "auto", 32, True, Size(4, 256)),
        ("auto", "auto", 32, False, Size(32, 512)),
        (4, "auto", 2, True, Size(4, 256)),
        (32, "auto", 2, True, Size(32, MIN_GAMES)),
        ("auto", 7, 2, True, Size(1, 7)),
        (3, 5, 64, False, Size(3, 5)),
    ],
)
def test_sizes(workers: int | Auto, games: int | Auto, cores: int, network_is_here: bool, size: Size) -> None:
    assert choose_size(workers, games, network_is_here=network_is_here, cores=cores) == size
