# SPDX-License-Identifier: Apache-2.0
from mcts_ext.rules import Round

def observation(table: Round, *, with_others: bool = True) -> bytes: ...
