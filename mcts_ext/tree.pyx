# SPDX-License-Identifier: Apache-2.0
"""Search tree of one determinization: nodes in an arena, PUCT selection, expansion, max^n backup."""

from libc.math cimport fabs
from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from mcts_ext.cards cimport lowest
from mcts_ext.node cimport NodeC
from mcts_ext.rules cimport StateC, state_action_offset, state_apply, state_skip_forced
from mcts_ext.selection cimport SearchParamsC, select_evenly, select_puct

from mcts_ext.errors import NoMemory

cdef extern from *:
    """
    #define blob_prefetch(address) __builtin_prefetch(address)
    """
    void _prefetch "blob_prefetch"(const void* address) noexcept nogil


cdef int tree_alloc(TreeC* tree, int32_t capacity) except -1:
    memset(tree, 0, sizeof(TreeC))
    tree.nodes = <NodeC*>malloc(<size_t>capacity * sizeof(NodeC))
    if tree.nodes == NULL:
        raise NoMemory(f"expected room for {capacity} tree nodes; use fewer simulations or games")
    tree.capacity = capacity
    return 0


cdef void tree_free(TreeC* tree) noexcept nogil:
    free(tree.nodes)
    tree.nodes = NULL


cdef void tree_reset(TreeC* tree) noexcept nogil:
    """Reset to an unexpanded root; the caller sets `tree.root`."""
    memset(tree.nodes, 0, sizeof(NodeC))
    tree.nodes[0].parent = -1
    tree.n_nodes = 1
    tree.n_simulations = 0
    tree.n_waiting = 0


cdef int32_t tree_descend(TreeC* tree, const SearchParamsC* params, StateC* state) noexcept nogil:
    """Begin one simulation: walk to a leaf, which is an unexpanded node or the end of the round; return its index.

    With `even_root` the root's children are visited equally often; PUCT selects everywhere else.
    Writes the leaf's position to `state` (forced moves played) and adds one visit in flight to every node of the path.
    """
    cdef NodeC* nodes = tree.nodes
    cdef int32_t index = 0
    memcpy(state, &tree.root, sizeof(StateC))
    tree.n_simulations += 1
    while nodes[index].n_children > 0:
        nodes[index].n_in_flight += 1
        if params.even_root and index == 0:
            index = select_evenly(nodes, &nodes[0])
        else:
            index = select_puct(nodes, &nodes[index], params)
        _prefetch(&nodes[nodes[index].first_child])    # its children, while the move is made
        _prefetch(&nodes[nodes[index].first_child + 2])
        state_apply(state, nodes[index].action)
        state_skip_forced(state)
    nodes[index].n_in_flight += 1
    return index


cdef void tree_expand(TreeC* tree, int32_t leaf, const StateC* state, uint64_t legal, const float* priors,
                      float value) noexcept nogil:
    """Add the children of a leaf, one per bit of `legal`, with `priors` in the same order.

    `state` gives the seat to act and the phase; `value` is the network's value for that seat.
    """
    cdef NodeC* child = &tree.nodes[tree.n_nodes]
    cdef int offset = state_action_offset(state)
    cdef int n = 0
    tree.nodes[leaf].first_child = tree.n_nodes
    tree.nodes[leaf].value = value
    while legal:
        memset(child, 0, sizeof(NodeC))
        child.prior = priors[n]
        child.parent = leaf
        child.action = <uint8_t>(offset + <int>lowest(legal))
        child.seat = state.seat_to_act
        legal &= legal - 1
        child += 1
        n += 1
    tree.nodes[leaf].n_children = <uint8_t>n
    tree.n_nodes += n


cdef void tree_backup(TreeC* tree, int32_t leaf, const float* values) noexcept nogil:
    """Finish one simulation: add to every edge of the path the value of the seat that chose it (max^n).

    `values`: `[S]` by absolute seat.
    """
    cdef NodeC* node
    cdef int32_t index = leaf
    while index >= 0:
        node = &tree.nodes[index]
        node.n_in_flight -= 1
        node.n_visits += 1
        node.value_sum += values[node.seat]
        index = node.parent


cdef int check_tree(const TreeC* tree, bint sequential) except -1:
    """Raise ValueError unless the tree's invariants hold at rest.

    Nothing in flight; children contiguous and pointing back; priors in [0, 1], summing to 1 over siblings;
    0 <= W <= N; values in [0, 1]; and N = 1 + sum N(children) in each expanded node (N >= that if several leaves were
    in flight, which may visit a leaf again before it is expanded). NaN fails every comparison.
    """
    cdef int32_t i, j
    cdef const NodeC* node
    cdef const NodeC* child
    cdef double priors
    cdef int below
    cdef int expected_nodes = 1
    if tree.n_waiting != 0:
        raise ValueError(f"{tree.n_waiting} leaves are still waiting")
    if tree.n_nodes > tree.capacity:
        raise ValueError(f"{tree.n_nodes} nodes in an arena of {tree.capacity}")
    for i in range(tree.n_nodes):
        node = &tree.nodes[i]
        if node.n_in_flight != 0:
            raise ValueError(f"node {i}: {node.n_in_flight} visits in flight at rest")
        if not -1e-6 <= node.value_sum <= node.n_visits + 1e-4:
            raise ValueError(f"node {i}: value sum {node.value_sum} of {node.n_visits} visits")
        if node.n_children == 0:
            continue
        if not 0.0 <= node.value <= 1.0:
            raise ValueError(f"node {i}: value {node.value}")
        expected_nodes += node.n_children
        priors = 0.0
        below = 0
        for j in range(node.first_child, node.first_child + node.n_children):
            child = &tree.nodes[j]
            if child.parent != i:
                raise ValueError(f"node {j}: parent {child.parent}, expected {i}")
            if not 0.0 <= child.prior <= 1.0 + 1e-6:
                raise ValueError(f"node {j}: prior {child.prior}")
            priors += child.prior
            below += child.n_visits
        if not fabs(priors - 1.0) <= 1e-4:
            raise ValueError(f"node {i}: priors of its children sum to {priors}")
        if node.n_visits < 1 + below or (sequential and node.n_visits != 1 + below):
            raise ValueError(f"node {i}: {node.n_visits} visits, {below} below it")
    if tree.n_nodes != expected_nodes:
        raise ValueError(f"{tree.n_nodes} nodes, {expected_nodes} reachable")
    if tree.nodes[0].n_visits != tree.n_simulations:
        raise ValueError(f"{tree.n_simulations} simulations begun, {tree.nodes[0].n_visits} visits at the root")
    return 0
