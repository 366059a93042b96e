# SPDX-License-Identifier: Apache-2.0
"""Loops timed by benchmarks, all in C: random playouts, and searches with a free evaluator."""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from mcts_ext.cards cimport nth_bit, popcount
from mcts_ext.rng cimport FOR_BENCHMARK, RngC, any_int, rng_below, rng_next, rng_seed, rng_uniform
from mcts_ext.rules cimport (
    Round, StateC, state_action_offset, state_apply, state_is_over, state_legal, state_values,
)
from mcts_ext.selection cimport SearchParamsC
from mcts_ext.tree cimport (
    TreeC, check_tree, tree_alloc, tree_backup, tree_descend, tree_expand, tree_free, tree_reset,
)
from mcts_ext.types cimport MAX_LEGAL, MAX_SEATS

from mcts_ext.errors import InvalidConfig, NoMemory

cdef struct SlotC:          # one tree and its current leaf
    TreeC   tree
    StateC  state           # the leaf's position
    int32_t leaf


def random_playouts(Round table not None, int n, *, seed):
    """Play the round to its end n times with uniformly random legal actions; return the total number of moves."""
    cdef StateC state
    cdef RngC rng
    cdef uint64_t legal
    cdef int _i, pick
    cdef int64_t moves = 0
    rng_seed(&rng, FOR_BENCHMARK, any_int(seed), 0)
    with nogil:
        for _i in range(n):
            memcpy(&state, &table.state, sizeof(StateC))
            while not state_is_over(&state):
                legal = state_legal(&state)
                pick = <int>nth_bit(legal, rng_below(&rng, popcount(legal)))
                state_apply(&state, state_action_offset(&state) + pick)
                moves += 1
    return moves


@cython.final
cdef class FreeSearch:
    """Searches deals with open hands and a nearly free evaluator: only descent, expansion and backup remain.

    As in a pool, every tree descends to a leaf, then every leaf is expanded and backed up. Each search takes the next
    deal.

    Args:
        deals: rounds with at least one move to make.
        n_trees: number of concurrent trees.
        simulations: simulations per tree in one search, including the one that expands the root.
        random: draw priors and values; otherwise priors are equal and every value is one half.
    """

    cdef SlotC* slots       # [n_trees]
    cdef StateC* deals      # [n_deals]
    cdef RngC rng
    cdef int n_trees, n_deals, simulations, next_deal
    cdef bint random
    cdef SearchParamsC params

    def __cinit__(self, deals, *, int n_trees, int simulations, seed, bint random, float c_puct, float fpu_reduction):
        cdef Round table
        if not 1 <= n_trees <= 1_000_000 or not 1 <= simulations <= 1_000_000:
            raise InvalidConfig(f"expected 1..1000000 trees and simulations, got {n_trees} and {simulations}")
        if not deals or any(dealt.is_over for dealt in deals):
            raise InvalidConfig("expected deals in progress, got none or a finished one")
        max_cards = max(dealt.n_cards for dealt in deals)
        self.n_trees = n_trees
        self.n_deals = len(deals)
        self.simulations = simulations
        self.random = random
        self.params.c_puct = c_puct
        self.params.fpu_reduction = fpu_reduction
        rng_seed(&self.rng, FOR_BENCHMARK, any_int(seed), 1)
        self.slots = <SlotC*>calloc(n_trees, sizeof(SlotC))
        self.deals = <StateC*>calloc(self.n_deals, sizeof(StateC))
        if self.slots == NULL or self.deals == NULL:
            raise NoMemory(f"expected room for {n_trees} trees; search fewer")
        for i in range(n_trees):
            tree_alloc(&self.slots[i].tree, 1 + simulations * (max_cards + 1))
        for i in range(self.n_deals):
            table = deals[i]
            memcpy(&self.deals[i], &table.state, sizeof(StateC))

    def __dealloc__(self):
        cdef int i
        if self.slots != NULL:
            for i in range(self.n_trees):
                tree_free(&self.slots[i].tree)
        free(self.slots)
        free(self.deals)

    def run(self, int n):
        """Search n times on every tree; return the number of simulations, counted at the roots."""
        cdef int64_t done = 0
        cdef int _i
        with nogil:
            for _i in range(n):
                done += self._search()
        return done

    def check(self):
        """Raise ValueError unless every tree's invariants hold (see check_tree)."""
        for i in range(self.n_trees):
            check_tree(&self.slots[i].tree, True)

    cdef int64_t _search(self) noexcept nogil:
        cdef SlotC* slot
        cdef int64_t done = 0
        cdef int i, _turn
        for i in range(self.n_trees):
            slot = &self.slots[i]
            tree_reset(&slot.tree)
            memcpy(&slot.tree.root, &self.deals[self.next_deal], sizeof(StateC))
            self.next_deal = self.next_deal + 1 if self.next_deal + 1 < self.n_deals else 0
        for _turn in range(self.simulations):
            for i in range(self.n_trees):
                slot = &self.slots[i]
                slot.leaf = tree_descend(&slot.tree, &self.params, &slot.state)
            for i in range(self.n_trees):
                self._finish(&self.slots[i])
        for i in range(self.n_trees):
            done += self.slots[i].tree.nodes[0].n_visits
        return done

    cdef void _finish(self, SlotC* slot) noexcept nogil:
        """Evaluate a leaf, expand it and back it up."""
        cdef const StateC* state = &slot.state
        cdef float[MAX_SEATS] values
        cdef float[MAX_LEGAL] priors
        cdef uint64_t legal
        cdef float total = 0.0
        cdef int seat, k, n
        if state_is_over(state):
            state_values(state, values)
        else:
            legal = state_legal(state)
            n = popcount(legal)
            for k in range(n):
                priors[k] = 1 + <float>(rng_next(&self.rng) >> 40) if self.random else <float>1.0   # never 0
                total += priors[k]
            for k in range(n):
                priors[k] /= total
            for seat in range(state.n_players):
                values[seat] = <float>rng_uniform(&self.rng) if self.random else <float>0.5
            tree_expand(&slot.tree, slot.leaf, state, legal, priors, values[state.seat_to_act])
        tree_backup(&slot.tree, slot.leaf, values)
