# SPDX-License-Identifier: Apache-2.0
"""Search tree of one determinization: nodes in an arena, PUCT selection, expansion, max^n backup.

```
nodes   | root | children of the root | children of the first leaf expanded | ...   one array, int32 indices
          0      1 .. n                 n + 1 ..
```
A node is a position together with the edge into it. Positions are not stored: a descent replays the actions from the
root's state. Forced moves are skipped, so every expanded node has at least two children.
"""

from libc.stdint cimport int32_t, uint64_t

from mcts_ext.node cimport NodeC
from mcts_ext.rules cimport StateC
from mcts_ext.selection cimport SearchParamsC

cdef struct TreeC:
    NodeC*  nodes
    int32_t capacity
    int32_t n_nodes
    int32_t n_simulations   # begun, including the expansion of the root
    int32_t n_waiting       # leaves waiting for an evaluation
    StateC  root

cdef int tree_alloc(TreeC* tree, int32_t capacity) except -1
cdef void tree_free(TreeC* tree) noexcept nogil
cdef void tree_reset(TreeC* tree) noexcept nogil
cdef int32_t tree_descend(TreeC* tree, const SearchParamsC* params, StateC* state) noexcept nogil
cdef void tree_expand(TreeC* tree, int32_t leaf, const StateC* state, uint64_t legal, const float* priors,
                      float value) noexcept nogil
cdef void tree_backup(TreeC* tree, int32_t leaf, const float* values) noexcept nogil
cdef int check_tree(const TreeC* tree, bint sequential) except -1
