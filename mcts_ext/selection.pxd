# SPDX-License-Identifier: Apache-2.0
"""Formulas of selection, noise, policy and temperature, each with its source, and the settings they take.

The formulas are inlined where they are used: the first is most of a search's time.

```
descent    select_puct, at the root select_evenly where SearchConfig.even_root
root       mix_noise into the priors
result     improved_policy, from the visits and values of all trees
move       temperature_at, draw_action
```
"""

from libc.math cimport INFINITY, expf, logf, pow, sqrtf
from libc.stdint cimport int32_t, int64_t

from mcts_ext.node cimport NodeC
from mcts_ext.rng cimport RngC, rng_uniform
from mcts_ext.types cimport MAX_LEGAL

cdef struct SearchParamsC:      # fields of SearchConfig, which explains them, by the same names
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
    """Return the settings of a SearchConfig."""
    if type(config).__name__ != "SearchConfig":         # whose numbers are in their ranges
        raise TypeError(f"expected a SearchConfig, got {type(config).__name__}")
    return vars(config)


cdef inline int32_t select_puct(const NodeC* nodes, const NodeC* node, const SearchParamsC* params) noexcept nogil:
    """Return the child that maximizes Q + c_puct * P * sqrt(N + n) / (1 + N_child + n_child); the first of equals.

    N are the finished visits of the node, the one that expanded it included, and n >= 1 those in flight, this one
    included. So with one leaf at a time the root is sqrt(2 + sum N_child). PUCT of Silver et al. 2017 (AlphaGo Zero,
    "Mastering the game of Go without human knowledge", Nature 550), https://doi.org/10.1038/nature24270, has sqrt(N)
    with N = sum N_child: there the prior has no say in the first choice.
    Q is from the view of the seat that chooses; a visit in flight counts as one of value 0 (virtual loss).
    """
    cdef float scale = params.c_puct * sqrtf(<float>(node.n_visits + node.n_in_flight))
    cdef float unvisited = node.value - params.fpu_reduction
    cdef float best_score = -1e30
    cdef float score, n
    cdef int32_t best = node.first_child
    cdef int32_t index
    cdef const NodeC* child
    for index in range(node.first_child, node.first_child + node.n_children):
        child = &nodes[index]
        n = <float>(child.n_visits + child.n_in_flight)
        score = unvisited if n == 0.0 else <float>child.value_sum / n
        score += scale * child.prior / (1.0 + n)
        if score > best_score:
            best_score = score
            best = index
    return best


cdef inline int32_t select_evenly(const NodeC* nodes, const NodeC* node) noexcept nogil:
    """Return the child with the fewest visits, in flight included; of equals the one with the largest prior."""
    cdef int32_t best = node.first_child
    cdef int32_t index, difference
    cdef const NodeC* child
    for index in range(node.first_child + 1, node.first_child + node.n_children):
        child = &nodes[index]
        difference = child.n_visits + child.n_in_flight - nodes[best].n_visits - nodes[best].n_in_flight
        if difference < 0 or (difference == 0 and child.prior > nodes[best].prior):
            best = index
    return best


cdef inline void mix_noise(const float* priors, const float* noise, int n, const SearchParamsC* params,
                           float* mixed) noexcept nogil:
    """Write (1 - epsilon) * P + epsilon * noise for `n` priors; AlphaZero draws the noise from Dir(alpha)."""
    cdef float fraction = <float>params.dirichlet_fraction
    cdef int k
    for k in range(n):
        mixed[k] = (1 - fraction) * priors[k] + fraction * noise[k]


cdef inline void improved_policy(const int64_t* n_visits, const double* value_sum, const double* prior, int n,
                                 const SearchParamsC* params, float* policy) noexcept nogil:
    """Write the improved policy over `n` legal actions; it sums to 1.

    softmax(log prior + q_scale * Q), after Danihelka et al. 2022 (Gumbel MuZero),
    https://openreview.net/forum?id=bERaNdoegnO, without the network's own value, which their completed Q mixes in
    (appendix D). An unvisited action gets the mean Q of the visited ones, weighted by prior, or by visits if those
    priors are all 0. The prior is that of the root, after noise. With q_scale 0: the visit distribution. Before the
    first visit: the prior, or uniform without one.
    """
    cdef double total = 0.0, weight = 0.0, mean = 0.0, highest = -INFINITY
    cdef int k
    for k in range(n):
        total += n_visits[k]
        weight += prior[k]
    if params.q_scale <= 0.0 or total == 0.0:
        for k in range(n):
            policy[k] = <float>(n_visits[k] / total if total > 0.0 else prior[k] / weight if weight > 0.0 else 1.0 / n)
        return
    weight = 0.0
    for k in range(n):
        if n_visits[k] > 0:
            weight += prior[k]
            mean += prior[k] * value_sum[k] / n_visits[k]
    if weight == 0.0:
        weight = total
        for k in range(n):
            mean += value_sum[k]
    mean /= weight
    total = 0.0
    for k in range(n):
        policy[k] = logf(<float>prior[k] + <float>1e-9) + params.q_scale * <float>(
            value_sum[k] / n_visits[k] if n_visits[k] > 0 else mean)
        if policy[k] > highest:
            highest = policy[k]
    for k in range(n):
        policy[k] = expf(policy[k] - <float>highest)
        total += policy[k]
    for k in range(n):
        policy[k] /= <float>total


cdef inline double temperature_at(const SearchParamsC* params, double progress) noexcept nogil:
    """Return a move's temperature: linear from the first to the last over a round, `progress` in 0..1."""
    return params.temperature + (params.temperature_final - params.temperature) * progress


cdef inline int draw_action(const float* policy, int n, double temperature, RngC* rng) noexcept nogil:
    """Return an index drawn in proportion to policy ** (1 / temperature); near 0, the argmax."""
    cdef double[MAX_LEGAL] weights
    cdef double total = 0.0
    cdef double pick
    cdef int i, best = 0
    for i in range(1, n):
        if policy[i] > policy[best]:
            best = i
    if temperature < 0.01:
        return best
    for i in range(n):
        weights[i] = pow(<double>policy[i] / policy[best], 1.0 / temperature)
        total += weights[i]
    pick = rng_uniform(rng) * total
    for i in range(n):
        pick -= weights[i]
        if pick < 0.0 and weights[i] > 0.0:
            return i
    return best
