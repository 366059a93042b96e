# SPDX-License-Identifier: Apache-2.0
"""Wrappers that let tests and benchmarks reach C functions; nothing else imports this."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from mcts_ext.determinize cimport determinize
from mcts_ext.rng cimport RngC, rng_below, rng_gamma, rng_seed, rng_uniform
from mcts_ext.rules cimport Round, StateC


def determinize_many(Round table not None, int seat, int n, *, seed):
    """Draw n determinizations, for timing."""
    cdef StateC state
    cdef RngC rng
    cdef int _i
    rng_seed(&rng, <uint64_t>seed, 0)
    with nogil:
        for _i in range(n):
            memcpy(&state, &table.state, sizeof(StateC))
            determinize(&state, seat, &rng)


def random_stream(seed, stream, int n, *, below=0, alpha=0.0):
    """n draws of one stream: below `below`, or Gamma(`alpha`), or uniform in [0, 1)."""
    cdef RngC rng
    rng_seed(&rng, <uint64_t>seed, <uint64_t>stream)
    if below:
        return [rng_below(&rng, below) for _ in range(n)]
    if alpha:
        return [rng_gamma(&rng, alpha) for _ in range(n)]
    return [rng_uniform(&rng) for _ in range(n)]
