# SPDX-License-Identifier: Apache-2.0
"""Search of one decision: one tree per determinization, root statistics summed over the trees."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from mcts_ext.batch cimport BatchC
from mcts_ext.rng cimport RngC
from mcts_ext.rules cimport StateC
from mcts_ext.tree cimport TreeC
from mcts_ext.types cimport MAX_LEGAL
from mcts_ext.weighing cimport WeighingC

cdef struct SearchParamsC:      # mirrors SearchConfig, which explains the fields
    int    determinizations
    int    candidates
    int    simulations
    int    leaves_per_tree
    float  c_puct
    float  fpu_reduction
    bint   even_root
    double dirichlet_alpha
    double dirichlet_fraction
    double temperature
    double temperature_final
    float  q_scale

cdef inline SearchParamsC search_params(object config) except *:
    """Return the C mirror of a SearchConfig."""
    if type(config).__name__ != "SearchConfig":         # whose numbers are in their ranges
        raise TypeError(f"expected a SearchConfig, got {type(config).__name__}")
    return vars(config)

cdef struct LeafC:              # a leaf waiting for its evaluation
    uint64_t     legal
    int32_t      node
    int32_t      row            # of the batch
    StateC       state          # its position

cdef struct CountsC:            # counters of a search or a pool
    int64_t rounds
    int64_t decisions           # searched decisions; forced moves are not counted
    int64_t simulations
    int64_t leaves              # leaves that needed an evaluation
    int64_t evaluations         # rows sent to the network; leaves may share one

cdef struct SearchC:
    TreeC*   trees              # [determinizations]
    LeafC*   leaves             # [determinizations, leaves_per_tree]
    WeighingC weighing          # empty if the determinizations are not weighted
    float[MAX_LEGAL] noise      # root noise over the legal actions, shared by the trees
    uint64_t legal              # at the root
    int      n_legal

cdef int64_t search_bytes(const SearchParamsC* params, int max_cards) noexcept nogil
cdef int search_alloc(SearchC* search, const SearchParamsC* params, int max_cards) except -1
cdef void search_free(SearchC* search, const SearchParamsC* params) noexcept nogil
cdef void search_start(SearchC* search, const SearchParamsC* params, const StateC* state, RngC* rng) noexcept nogil
cdef bint search_collect(SearchC* search, const SearchParamsC* params, BatchC* batch,
                         CountsC* counts) noexcept nogil
cdef void search_apply(SearchC* search, const SearchParamsC* params, const BatchC* batch) noexcept nogil
cdef void search_visits(const SearchC* search, const SearchParamsC* params, int64_t* visits) noexcept nogil
cdef void search_policy(const SearchC* search, const SearchParamsC* params, float* policy) noexcept nogil
