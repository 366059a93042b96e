# SPDX-License-Identifier: Apache-2.0
"""Search of one decision: one tree per determinization, root statistics summed over the trees.

`search_start` draws the determinizations, or the candidates that are weighed first (weighing.pyx), and the root noise.
`search_collect` runs every tree until its leaves wait for the network (or it is done) and adds their rows to a batch;
`search_apply` expands and backs up once the batch is evaluated. A tree takes up to `leaves_per_tree` leaves in one
*wave* and backs them up together, in order, so the result does not depend on the batch composition.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from mcts_ext.batch cimport (
    BatchC, EvaluationC, batch_alloc, batch_answer, batch_ask, batch_bytes, batch_clear, batch_free, batch_rows,
)
from mcts_ext.cards cimport popcount
from mcts_ext.contract cimport MAX_HAND, OBSERVATION_BYTES
from mcts_ext.determinize cimport determinize
from mcts_ext.node cimport NodeC
from mcts_ext.rng cimport FOR_SEARCH, RngC, any_int, rng_dirichlet, rng_seed
from mcts_ext.rules cimport (
    Round, StateC, bit_list, state_action_offset, state_is_over, state_legal, state_values,
)
from mcts_ext.selection cimport improved_policy, mix_noise, search_params
from mcts_ext.tree cimport (
    TreeC, check_tree, tree_alloc, tree_backup, tree_descend, tree_expand, tree_free, tree_reset,
)
from mcts_ext.types cimport MAX_LEGAL, MAX_SEATS
from mcts_ext.weighing cimport (
    CandidateC, weighing_alloc, weighing_apply, weighing_collect, weighing_free, weighing_kept, weighing_start,
)

import numpy as np

from mcts_ext.errors import NoMemory
from mcts_ext.memory import check_memory

cdef enum:
    CHECKED_BYTES = 1 << 28     # smaller searches skip the check of available memory


cdef inline int32_t _n_simulations(const SearchParamsC* params, int n_legal) noexcept nogil:
    """Return the simulations per tree: with an even root at least one for each of the root's actions."""
    return max(params.simulations, n_legal) if params.even_root else params.simulations


cdef inline int32_t _n_nodes(const SearchParamsC* params, int max_cards) noexcept nogil:
    """Return the maximum number of nodes per tree: a node has at most max_cards + 1 children."""
    return 1 + (_n_simulations(params, max_cards + 1) + 1) * (max_cards + 1)


cdef int64_t search_bytes(const SearchParamsC* params, int max_cards) noexcept nogil:
    """Return the memory of a search in bytes, without its batch."""
    cdef int64_t tree = sizeof(TreeC) + params.leaves_per_tree * sizeof(LeafC)
    tree += _n_nodes(params, max_cards) * <int64_t>sizeof(NodeC)
    return params.determinizations * tree + params.candidates * <int64_t>sizeof(CandidateC)


cdef int search_alloc(SearchC* search, const SearchParamsC* params, int max_cards) except -1:
    """Allocate a search for rounds of at most `max_cards` cards."""
    cdef int i
    memset(search, 0, sizeof(SearchC))
    search.trees = <TreeC*>calloc(params.determinizations, sizeof(TreeC))
    search.leaves = <LeafC*>calloc(params.determinizations * params.leaves_per_tree, sizeof(LeafC))
    if search.trees == NULL or search.leaves == NULL:
        raise NoMemory("expected room for a search; use fewer determinizations or leaves per tree")
    if params.candidates > 0:
        weighing_alloc(&search.weighing, params.candidates)
    for i in range(params.determinizations):
        tree_alloc(&search.trees[i], _n_nodes(params, max_cards))
    return 0


cdef void search_free(SearchC* search, const SearchParamsC* params) noexcept nogil:
    cdef int i
    if search.trees != NULL:
        for i in range(params.determinizations):
            tree_free(&search.trees[i])
    weighing_free(&search.weighing)
    free(search.trees)
    free(search.leaves)
    memset(search, 0, sizeof(SearchC))


cdef void search_start(SearchC* search, const SearchParamsC* params, const StateC* state, RngC* rng) noexcept nogil:
    """Start a decision of the seat to act in `state`. Advances rng; reads no card that the seat cannot see."""
    cdef int i
    search.legal = state_legal(state)
    search.n_legal = popcount(search.legal)
    if params.dirichlet_fraction > 0.0:
        rng_dirichlet(rng, params.dirichlet_alpha, search.n_legal, search.noise)
    for i in range(params.determinizations):
        tree_reset(&search.trees[i])
    if params.candidates > 0:
        weighing_start(&search.weighing, state, rng)
        return
    for i in range(params.determinizations):
        memcpy(&search.trees[i].root, state, sizeof(StateC))
        determinize(&search.trees[i].root, state.seat_to_act, rng)


cdef bint search_collect(SearchC* search, const SearchParamsC* params, BatchC* batch,
                         CountsC* counts) noexcept nogil:
    """Run every tree until it waits or is done, adding rows to the batch; return True when all are done.

    The batch must have room for SearchConfig.rows more rows.
    """
    cdef bint done = True
    cdef int i
    if params.candidates > 0 and not search.weighing.is_done:
        if not weighing_collect(&search.weighing, batch, &counts.leaves):
            return False
        for i in range(params.determinizations):
            memcpy(&search.trees[i].root, weighing_kept(&search.weighing, i, params.determinizations), sizeof(StateC))
    for i in range(params.determinizations):
        if not _run_tree(search, params, i, batch, counts):
            done = False
    return done


cdef bint _run_tree(SearchC* search, const SearchParamsC* params, int i, BatchC* batch,
                    CountsC* counts) noexcept nogil:
    cdef TreeC* tree = &search.trees[i]
    cdef LeafC* leaves = search.leaves + i * params.leaves_per_tree
    cdef LeafC* leaf
    cdef float[MAX_SEATS] values
    cdef int32_t n_simulations = _n_simulations(params, search.n_legal)
    if tree.n_waiting > 0:
        return False
    while tree.n_waiting < params.leaves_per_tree and tree.n_simulations <= n_simulations:
        leaf = &leaves[tree.n_waiting]
        leaf.node = tree_descend(tree, params, &leaf.state)
        counts.simulations += 1
        if state_is_over(&leaf.state):
            state_values(&leaf.state, values)
            tree_backup(tree, leaf.node, values)
            continue
        leaf.legal = state_legal(&leaf.state)
        leaf.row = batch_ask(batch, &leaf.state, leaf.legal)
        counts.leaves += 1
        tree.n_waiting += 1
        if leaf.node == 0:              # the root must be expanded first
            break
    return tree.n_waiting == 0


cdef void search_apply(SearchC* search, const SearchParamsC* params, const BatchC* batch) noexcept nogil:
    """Weigh the candidates, or expand and back up every waiting leaf; the batch has been evaluated."""
    cdef int i
    if params.candidates > 0:
        weighing_apply(&search.weighing, batch)
    for i in range(params.determinizations):
        _finish_wave(search, params, i, batch)


cdef void _finish_wave(SearchC* search, const SearchParamsC* params, int i, const BatchC* batch) noexcept nogil:
    cdef TreeC* tree = &search.trees[i]
    cdef LeafC* leaf
    cdef const EvaluationC* evaluation
    cdef float[MAX_LEGAL] noisy
    cdef const float* priors
    cdef float[MAX_SEATS] values
    cdef int w, k, seat
    for w in range(tree.n_waiting):
        leaf = &search.leaves[i * params.leaves_per_tree + w]
        evaluation = &batch.evaluations[leaf.row]
        if tree.nodes[leaf.node].n_children == 0:
            priors = &evaluation.priors[0]
            if leaf.node == 0 and params.dirichlet_fraction > 0.0:
                mix_noise(priors, search.noise, search.n_legal, params, noisy)
                priors = &noisy[0]
            tree_expand(tree, leaf.node, &leaf.state, leaf.legal, priors, evaluation.values[0])
        seat = leaf.state.seat_to_act
        for k in range(leaf.state.n_players):
            values[seat] = evaluation.values[k]
            seat = seat + 1 if seat + 1 < leaf.state.n_players else 0
        tree_backup(tree, leaf.node, values)
    tree.n_waiting = 0


cdef void search_visits(const SearchC* search, const SearchParamsC* params, int64_t* visits) noexcept nogil:
    """Write the visit count of each legal root action, ascending, summed over the trees: `[n_legal]`."""
    cdef int i, k
    cdef const TreeC* tree
    memset(visits, 0, search.n_legal * sizeof(int64_t))
    for i in range(params.determinizations):
        tree = &search.trees[i]
        for k in range(tree.nodes[0].n_children):
            visits[k] += tree.nodes[tree.nodes[0].first_child + k].n_visits


cdef void search_policy(const SearchC* search, const SearchParamsC* params, float* policy) noexcept nogil:
    """The policy over the legal actions in rising order, `[n_legal]`, of all trees together (selection.pxd)."""
    cdef int i, k
    cdef const TreeC* tree
    cdef const NodeC* child
    cdef int64_t[MAX_LEGAL] n_visits
    cdef double[MAX_LEGAL] value_sum
    cdef double[MAX_LEGAL] prior
    search_visits(search, params, n_visits)
    memset(value_sum, 0, sizeof(value_sum))
    memset(prior, 0, sizeof(prior))
    for i in range(params.determinizations):
        tree = &search.trees[i]
        for k in range(tree.nodes[0].n_children):
            child = &tree.nodes[tree.nodes[0].first_child + k]
            value_sum[k] += child.value_sum
            prior[k] += child.prior / params.determinizations
    improved_policy(n_visits, value_sum, prior, search.n_legal, params, policy)


@cython.final
cdef class Search:
    """Search of one decision, driven from Python: `collect`, evaluate `observations`, `apply`, until done.

    A forced move needs no search: `collect` returns 0 at once and its policy is 1.

    Raises:
        ValueError: if the round is over.
        InvalidConfig: if the search needs more memory than is available.
    """

    cdef SearchC search
    cdef SearchParamsC params
    cdef BatchC batch
    cdef CountsC counts
    cdef StateC state
    cdef object _rows

    def __cinit__(self, Round table not None, config, *, seed):
        cdef RngC rng
        if state_is_over(&table.state):
            raise ValueError("expected a round in progress, got a finished one")
        rng_seed(&rng, FOR_SEARCH, any_int(seed), 0)
        self.params = search_params(config)
        memcpy(&self.state, &table.state, sizeof(StateC))
        self.search.legal = state_legal(&self.state)
        self.search.n_legal = popcount(self.search.legal)
        if self.search.n_legal == 1:
            self.params.determinizations = self.params.candidates = 0
            self._rows = np.zeros((0, OBSERVATION_BYTES), dtype=np.uint8)
            return
        n_bytes = memory_of_search(config, table.state.n_cards)
        if n_bytes > CHECKED_BYTES:
            check_memory(n_bytes, of="a search")
        search_alloc(&self.search, &self.params, table.state.n_cards)
        batch_alloc(&self.batch, config.rows)
        self._rows = batch_rows(&self.batch)
        search_start(&self.search, &self.params, &self.state, &rng)

    def __dealloc__(self):
        search_free(&self.search, &self.params)
        batch_free(&self.batch)

    def collect(self):
        """Run the trees until their leaves wait; return the number of rows to evaluate, 0 when the search is done.

        Calling it again before `apply` returns the same batch.
        """
        if self.batch.n_rows == 0:
            with nogil:
                search_collect(&self.search, &self.params, &self.batch, &self.counts)
        return self.batch.n_rows

    @property
    def observations(self):
        """Rows of the last `collect`, `[rows, F]` uint8; valid until `apply`."""
        return self._rows[: self.batch.n_rows]

    def apply(self, const float[:, ::1] logits not None, const float[:, ::1] values not None):
        """Apply the evaluations, logits `[rows, A]` and values `[rows, S]`, of the rows of the last `collect`."""
        batch_answer(&self.batch, logits, values)
        if self.batch.n_rows > 0:
            with nogil:
                search_apply(&self.search, &self.params, &self.batch)
            batch_clear(&self.batch)

    def deals(self):
        """Return the determinizations, a Round each; empty while candidates are being weighed."""
        cdef Round deal
        deals = []
        if self.params.candidates > 0 and not self.search.weighing.is_done:
            return deals
        for i in range(self.params.determinizations):
            deal = Round.__new__(Round)
            memcpy(&deal.state, &self.search.trees[i].root, sizeof(StateC))
            deals.append(deal)
        return deals

    def visits(self):
        """Return the visit counts, `{action: N}`, summed over the determinizations."""
        cdef int64_t[MAX_LEGAL] visits
        search_visits(&self.search, &self.params, visits)
        return self._by_action([visits[i] for i in range(self.search.n_legal)])

    def policy(self):
        """Return the improved policy or, with q_scale 0, the visit distribution: `{action: probability}`."""
        cdef float[MAX_LEGAL] policy
        search_policy(&self.search, &self.params, policy)
        return self._by_action([policy[i] for i in range(self.search.n_legal)])

    def _by_action(self, numbers):
        """Map the legal actions to `numbers`, given in ascending order of the actions."""
        return dict(zip(bit_list(self.search.legal, state_action_offset(&self.state)), numbers))

    def values(self):
        """Return the mean value per visited action from the view of the seat to act, `{action: Q}`."""
        cdef const TreeC* tree
        sums = {}
        for i in range(self.params.determinizations):
            tree = &self.search.trees[i]
            for k in range(tree.nodes[0].first_child, tree.nodes[0].first_child + tree.nodes[0].n_children):
                n, w = sums.get(tree.nodes[k].action, (0, 0.0))
                sums[tree.nodes[k].action] = (n + tree.nodes[k].n_visits, w + tree.nodes[k].value_sum)
        return {action: w / n for action, (n, w) in sums.items() if n}

    def check(self):
        """Raise ValueError unless the invariants of every tree at rest hold (see check_tree)."""
        for i in range(self.params.determinizations):
            check_tree(&self.search.trees[i], self.params.leaves_per_tree == 1)

    @property
    def n_evaluations(self):
        """Number of leaves that needed an evaluation so far."""
        return self.counts.leaves


def memory_of_search(config, n_cards):
    """Return the bytes used by a `Search` in a round of `n_cards` cards."""
    cdef SearchParamsC params = search_params(config)
    return search_bytes(&params, min(n_cards, MAX_HAND)) + batch_bytes(config.rows)
