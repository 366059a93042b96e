# SPDX-License-Identifier: Apache-2.0
"""The search of one decision: determinizations, a tree on each, leaves out, evaluations in, visits added up.

`search_start` draws the determinizations, or the candidates that are weighed first (weighing.pyx), and the root noise.
`search_collect` runs every tree until its leaves wait for the network (or it is done) and adds their rows to a batch;
`search_apply` expands and backs up once the batch is answered. A tree takes up to `leaves_per_tree` leaves in one
*wave* and backs them up together, in order: so a result never depends on what happened to be batched together.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from mcts_ext.batch cimport (
    BatchC, EvaluationC, batch_alloc, batch_answer, batch_ask, batch_bytes, batch_clear, batch_free,
)
from mcts_ext.cards cimport lowest, popcount
from mcts_ext.determinize cimport determinize
from mcts_ext.node cimport NodeC
from mcts_ext.rng cimport FOR_SEARCH, RngC, any_int, rng_dirichlet, rng_seed
from mcts_ext.rules cimport (
    Round, StateC, state_action_offset, state_is_over, state_legal, state_values,
)
from mcts_ext.selection cimport improved_policy, mix_noise
from mcts_ext.tree cimport (
    TreeC, check_tree, tree_alloc, tree_backup, tree_descend, tree_expand, tree_free, tree_reset,
)
from mcts_ext.types cimport MAX_HAND, MAX_LEGAL, MAX_SEATS, OBSERVATION_BYTES
from mcts_ext.weighing cimport (
    CandidateC, weighing_alloc, weighing_apply, weighing_collect, weighing_free, weighing_kept, weighing_start,
)

import numpy as np

from mcts_ext.config import SearchConfig
from mcts_ext.errors import NoMemory
from mcts_ext.memory import check_memory

cdef enum:
    WORTH_A_LOOK = 1 << 28      # bytes: below, what the machine has is not asked for each search


cdef SearchParamsC search_params(object config) except *:
    """The C mirror of a SearchConfig."""
    cdef SearchParamsC params
    if not isinstance(config, SearchConfig):            # whose numbers are in their ranges
        raise TypeError(f"expected a SearchConfig, got {type(config).__name__}")
    params.determinizations = config.determinizations
    params.candidates = config.candidates
    params.simulations = config.simulations
    params.leaves_per_tree = config.leaves_per_tree
    params.c_puct = config.c_puct
    params.fpu_reduction = config.fpu_reduction
    params.even_root = config.even_root
    params.dirichlet_alpha = config.dirichlet_alpha
    params.dirichlet_fraction = config.dirichlet_fraction
    params.temperature = config.temperature
    params.temperature_final = config.temperature_final
    params.q_scale = config.q_scale
    return params


cdef inline int32_t _n_nodes(const SearchParamsC* params, int max_cards) noexcept nogil:
    """Of a tree at most: a node has max_cards + 1 children or fewer."""
    return 1 + (params.simulations + 1) * (max_cards + 1)


cdef int64_t search_bytes(const SearchParamsC* params, int max_cards) noexcept nogil:
    """Memory of a search, without its batch."""
    cdef int64_t tree = sizeof(TreeC) + params.leaves_per_tree * sizeof(LeafC)
    tree += _n_nodes(params, max_cards) * <int64_t>sizeof(NodeC)
    return params.determinizations * tree + params.candidates * <int64_t>sizeof(CandidateC)


cdef int search_alloc(SearchC* search, const SearchParamsC* params, int max_cards) except -1:
    """Room for searches of rounds of at most `max_cards` cards."""
    cdef int i
    memset(search, 0, sizeof(SearchC))
    search.trees = <TreeC*>calloc(params.determinizations, sizeof(TreeC))
    search.leaves = <LeafC*>calloc(params.determinizations * params.leaves_per_tree, sizeof(LeafC))
    if search.trees == NULL or search.leaves == NULL:
        raise NoMemory("expected room for a search; ask for fewer determinizations or leaves at once")
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
    """Begin a decision of the seat to act in `state`. Advances rng; reads no card that the seat cannot see."""
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
    """Run every tree until it waits or is done, adding rows to the batch; True when all are done.

    The batch has room for SearchConfig.rows rows more.
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
    if tree.n_waiting > 0:
        return False
    while tree.n_waiting < params.leaves_per_tree and tree.n_simulations <= params.simulations:
        leaf = &leaves[tree.n_waiting]
        leaf.node = tree_descend(tree, params.c_puct, params.fpu_reduction, params.even_root, &leaf.state)
        counts.simulations += 1
        if state_is_over(&leaf.state):
            state_values(&leaf.state, values)
            tree_backup(tree, leaf.node, values)
            continue
        leaf.legal = state_legal(&leaf.state)
        leaf.row = batch_ask(batch, &leaf.state, leaf.legal)
        counts.leaves += 1
        tree.n_waiting += 1
        if leaf.node == 0:              # nothing to choose from before the root is expanded
            break
    return tree.n_waiting == 0


cdef void search_apply(SearchC* search, const SearchParamsC* params, const BatchC* batch) noexcept nogil:
    """Weigh the candidates, or expand and back up every leaf that waits; the batch has been answered."""
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
    cdef float fraction = <float>params.dirichlet_fraction
    cdef int w, k, seat
    for w in range(tree.n_waiting):
        leaf = &search.leaves[i * params.leaves_per_tree + w]
        evaluation = &batch.evaluations[leaf.row]
        if tree.nodes[leaf.node].n_children == 0:
            priors = &evaluation.priors[0]
            if leaf.node == 0 and fraction > 0.0:
                mix_noise(priors, search.noise, fraction, search.n_legal, noisy)
                priors = &noisy[0]
            tree_expand(tree, leaf.node, &leaf.state, leaf.legal, priors, evaluation.values[0])
        seat = leaf.state.seat_to_act
        for k in range(leaf.state.n_players):
            values[seat] = evaluation.values[k]
            seat = seat + 1 if seat + 1 < leaf.state.n_players else 0
        tree_backup(tree, leaf.node, values)
    tree.n_waiting = 0


cdef void search_visits(const SearchC* search, const SearchParamsC* params, int64_t* visits) noexcept nogil:
    """Visits of each legal root action, in rising order, summed over the trees: `[n_legal]`."""
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
    improved_policy(n_visits, value_sum, prior, search.n_legal, params.q_scale, policy)


@cython.final
cdef class Search:
    """One decision of one seat, driven from Python: `collect`, evaluate `observations`, `apply`, until done.

    A forced move is done at once: its policy is 1, and nothing is searched or asked.

    Raises:
        ValueError: the round is over.
        InvalidConfig: the search needs more memory than there is.
    """

    cdef SearchC search
    cdef SearchParamsC params
    cdef BatchC batch
    cdef CountsC counts
    cdef StateC state
    cdef object _rows
    cdef uint8_t[:, ::1] _view

    def __cinit__(self, Round table not None, config, *, seed):
        cdef RngC rng
        if state_is_over(&table.state):
            raise ValueError("expected a round in progress, got a finished one: nobody is to act")
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
        if n_bytes > WORTH_A_LOOK:
            check_memory(n_bytes, of="a search")
        search_alloc(&self.search, &self.params, table.state.n_cards)
        batch_alloc(&self.batch, config.rows)
        self._rows = np.zeros((self.batch.capacity + 1, OBSERVATION_BYTES), dtype=np.uint8)
        self._view = self._rows
        self.batch.rows = &self._view[0, 0]
        search_start(&self.search, &self.params, &self.state, &rng)

    def __dealloc__(self):
        search_free(&self.search, &self.params)
        batch_free(&self.batch)

    def collect(self):
        """Run the trees until their leaves wait; the number of rows to evaluate, 0 when the search is done.

        While the last rows have no answer they stand as they are: collecting again asks the same.
        """
        if self.batch.n_rows == 0:
            with nogil:
                search_collect(&self.search, &self.params, &self.batch, &self.counts)
        return self.batch.n_rows

    @property
    def observations(self):
        """`[rows, F]` uint8: what the last `collect` asks for; valid until it is applied."""
        return self._rows[: self.batch.n_rows]

    def apply(self, const float[:, ::1] logits not None, const float[:, ::1] values not None):
        """Hand in the answers, logits `[rows, A]` and values `[rows, S]`, for the rows of the last `collect`."""
        batch_answer(&self.batch, logits, values)
        if self.batch.n_rows > 0:
            with nogil:
                search_apply(&self.search, &self.params, &self.batch)
            batch_clear(&self.batch)

    def deals(self):
        """The deals that are searched, a Round each; with candidates only once these are weighed."""
        cdef Round deal
        found = []
        if self.params.candidates > 0 and not self.search.weighing.is_done:
            return found
        for i in range(self.params.determinizations):
            deal = Round.__new__(Round)
            memcpy(&deal.state, &self.search.trees[i].root, sizeof(StateC))
            found.append(deal)
        return found

    def visits(self):
        """Visits per action, `{action: N}`, summed over the determinizations."""
        cdef int64_t[MAX_LEGAL] visits
        search_visits(&self.search, &self.params, visits)
        return self._by_action([visits[i] for i in range(self.search.n_legal)])

    def policy(self):
        """The policy, softmax(log prior + q_scale * Q) or shares of visits (SearchConfig), `{action: probability}`."""
        cdef float[MAX_LEGAL] policy
        search_policy(&self.search, &self.params, policy)
        return self._by_action([policy[i] for i in range(self.search.n_legal)])

    def _by_action(self, numbers):
        """`numbers` of the legal actions in rising order, by action."""
        offset = state_action_offset(&self.state)
        found = {}
        legal = self.search.legal
        for number in numbers:
            found[offset + <int>lowest(legal)] = number
            legal &= legal - 1
        return found

    def values(self):
        """Mean backed-up value Q per action for the seat to act, `{action: Q}`; unvisited actions are left out."""
        cdef const TreeC* tree
        sums = {}
        for i in range(self.params.determinizations):
            tree = &self.search.trees[i]
            for k in range(tree.nodes[0].first_child, tree.nodes[0].first_child + tree.nodes[0].n_children):
                n, w = sums.get(tree.nodes[k].action, (0, 0.0))
                sums[tree.nodes[k].action] = (n + tree.nodes[k].n_visits, w + tree.nodes[k].value_sum)
        return {action: w / n for action, (n, w) in sums.items() if n}

    def check(self):
        """Raise ValueError unless every tree at rest is sound (see check_tree)."""
        for i in range(self.params.determinizations):
            check_tree(&self.search.trees[i], self.params.leaves_per_tree == 1)

    @property
    def n_evaluations(self):
        """Leaves that asked for an evaluation so far."""
        return self.counts.leaves


def memory_of_search(config, n_cards):
    """Bytes that a `Search` takes in a round of so many cards."""
    cdef SearchParamsC params = search_params(config)
    return search_bytes(&params, min(n_cards, MAX_HAND)) + batch_bytes(config.rows)
