# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from mcts_ext.config import DealConfig, SearchConfig
from mcts_ext.records import Records

@final
class SelfPlayPool:
    n_games: int
    n_groups: int
    def __init__(
        self,
        rounds: Sequence[int] | NDArray[np.int64],
        *,
        totals: NDArray[np.uint16] | None = None,
        seed: int,
        deal: DealConfig,
        search: SearchConfig,
        n_games: int = 256,
        n_groups: int = 2,
    ) -> None: ...
    def collect(self, group: int) -> int: ...
    def observations(self, group: int) -> NDArray[np.uint8]: ...
    def apply(
        self, group: int, logits: NDArray[np.float32], values: NDArray[np.float32], *, model_version: int = 0
    ) -> None: ...
    def take_records(self) -> Records: ...
    def check(self) -> None: ...
    @property
    def n_unfinished(self) -> int: ...
    @property
    def stats(self) -> dict[str, int]: ...

MOST_POINTS: int

def memory_of_pool(deal: DealConfig, search: SearchConfig, *, n_games: int, n_groups: int) -> int: ...
