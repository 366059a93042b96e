# SPDX-License-Identifier: Apache-2.0
from mcts_ext.rules import Round

def determinized(table: Round, seat: int, *, seed: int, stream: int = 0, constructed: bool = False) -> Round: ...
