# SPDX-License-Identifier: Apache-2.0
"""Workers and rounds side by side, chosen where nobody says."""

import pytest

from clients.selfplay.sizing import Auto, Size, choose_size


@pytest.mark.parametrize(
    ("workers", "games", "groups", "cores", "network_is_here", "size"),
    [
        ("auto", "auto", "auto", 2, True, Size(1, 1024, 4)),
        ("auto", "auto", "auto", 32, True, Size(4, 256, 1)),
        ("auto", "auto", "auto", 32, False, Size(32, 1024, 4)),
        (3, "auto", "auto", 2, True, Size(3, 512, 2)),
        (32, "auto", "auto", 2, True, Size(32, 256, 1)),
        ("auto", 7, "auto", 2, True, Size(1, 7, 4)),
        ("auto", "auto", 2, 2, True, Size(1, 512, 2)),
        (3, 5, 1, 64, False, Size(3, 5, 1)),
    ],
)
def test_sizes(
    workers: int | Auto, games: int | Auto, groups: int | Auto, cores: int, network_is_here: bool, size: Size
) -> None:
    assert choose_size(workers, games, groups, network_is_here=network_is_here, cores=cores) == size
