# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import final

from mcts_ext.rules import Round

def random_playouts(table: Round, n: int, *, seed: int) -> int: ...

@final
class FreeSearch:
    def __init__(
        self,
        deals: Sequence[Round],
        *,
        n_trees: int,
        simulations: int,
        seed: int,
        random: bool,
        c_puct: float,
        fpu_reduction: float,
    ) -> None: ...
    def run(self, n: int) -> int: ...
    def check(self) -> None: ...
