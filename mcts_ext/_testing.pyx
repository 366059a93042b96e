# SPDX-License-Identifier: Apache-2.0
"""Wrappers of C functions for tests and benchmarks; nothing else imports this module."""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from mcts_ext.batch cimport BatchC, batch_alloc, batch_free
from mcts_ext.determinize cimport determinize
from mcts_ext.rng cimport (
    FOR_BENCHMARK, FOR_DEAL, FOR_DETERMINIZED, FOR_GAME, FOR_PIMC, FOR_ROUND, FOR_SEARCH, RngC, any_int, rng_below,
    rng_dirichlet, rng_log_gamma, rng_seed, rng_uniform,
)
from mcts_ext.rules cimport Round, StateC, state_legal
from mcts_ext.selection cimport SearchParamsC
from mcts_ext.tree cimport TreeC, check_tree, tree_alloc, tree_backup, tree_descend, tree_expand, tree_free, tree_reset
from mcts_ext.types cimport MAX_LEGAL, MAX_SEATS

from mcts_ext.errors import InvalidConfig

PURPOSES = {
    "round": FOR_ROUND, "game": FOR_GAME, "deal": FOR_DEAL, "search": FOR_SEARCH, "determinized": FOR_DETERMINIZED,
    "benchmark": FOR_BENCHMARK, "pimc": FOR_PIMC,
}


def determinize_many(Round table not None, int seat, int n, *, seed):
    """Draw n determinizations, for timing."""
    cdef StateC state
    cdef RngC rng
    cdef int _i
    if not 0 <= seat < table.state.n_players:
        raise InvalidConfig(f"expected a seat in 0..{table.state.n_players - 1}, got {seat}")
    rng_seed(&rng, FOR_BENCHMARK, any_int(seed), 0)
    with nogil:
        for _i in range(n):
            memcpy(&state, &table.state, sizeof(StateC))
            determinize(&state, seat, &rng)


def random_stream(seed, stream, int n, *, purpose="round", below=0, double log_gamma=0.0):
    """Return n draws of one stream: integers < `below`, logarithms of Gamma(`log_gamma`), or uniform in [0, 1)."""
    cdef RngC rng
    rng_seed(&rng, PURPOSES[purpose], any_int(seed), any_int(stream))
    if below:
        return [rng_below(&rng, below) for _ in range(n)]
    if log_gamma > 0.0:
        return [rng_log_gamma(&rng, log_gamma) for _ in range(n)]
    return [rng_uniform(&rng) for _ in range(n)]


def dirichlet_shares(seed, int n, *, double alpha, int k):
    """Return n draws of a Dirichlet(`alpha`) over `k` shares."""
    cdef RngC rng
    cdef float[MAX_LEGAL] shares
    if not (0.0 < alpha <= 1000.0 and 1 <= k <= MAX_LEGAL):
        raise InvalidConfig(f"expected alpha above 0, up to 1000, and 1..{MAX_LEGAL} shares, got {alpha} and {k}")
    rng_seed(&rng, FOR_BENCHMARK, any_int(seed), 0)
    draws = []
    for _ in range(n):
        rng_dirichlet(&rng, alpha, k, shares)
        draws.append([shares[i] for i in range(k)])
    return draws


def allocate_batch(int64_t capacity):
    """Allocate and free a batch."""
    cdef BatchC batch
    batch_alloc(&batch, capacity)
    batch_free(&batch)


def check_one(Round table not None, priors, float value, values):
    """Run `check_tree` on a tree of one expanded node with these priors, its value and the backed-up values."""
    cdef TreeC tree
    cdef StateC state
    cdef SearchParamsC params           # not read: the root has no children
    cdef float[MAX_LEGAL] p
    cdef float[MAX_SEATS] v
    for i, prior in enumerate(priors[:MAX_LEGAL]):
        p[i] = prior
    for i, number in enumerate(values[:MAX_SEATS]):
        v[i] = number
    tree_alloc(&tree, 1 + MAX_LEGAL)
    try:
        tree_reset(&tree)
        memcpy(&tree.root, &table.state, sizeof(StateC))
        tree_descend(&tree, &params, &state)
        tree_expand(&tree, 0, &state, state_legal(&state), p, value)
        tree_backup(&tree, 0, v)
        check_tree(&tree, True)
    finally:
        tree_free(&tree)
