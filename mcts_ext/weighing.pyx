# SPDX-License-Identifier: Apache-2.0
"""Determinizations weighted by the network's probability of the other seats' bids and plays.

Candidates are drawn uniformly from the deals consistent with the information set. Each is replayed from its deal; at
every choice of another seat the network gives the prior of the action taken, and a candidate's weight is the product
of these priors. The searched determinizations are drawn from the candidates in proportion to their weights by
systematic resampling.
(Rebstock, Solinas, Buro and Sturtevant 2019, "Policy Based Inference in Trick-Taking Card Games",
https://arxiv.org/abs/1905.10911.)

One action of all candidates is evaluated at a time, so a search never adds more than `n` rows to a batch.
"""

from libc.math cimport exp, log
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from mcts_ext.batch cimport BatchC, EvaluationC, batch_ask
from mcts_ext.cards cimport popcount
from mcts_ext.contract cimport FIRST_CARD_ACTION
from mcts_ext.determinize cimport determinize
from mcts_ext.rng cimport RngC, rng_uniform
from mcts_ext.rules cimport StateC, state_action_offset, state_apply, state_legal, state_start
from mcts_ext.types cimport MAX_SEATS

from mcts_ext.errors import NoMemory

cdef double LEAST = 1e-4        # lower bound of a prior: one surprising action must not rule out a deal


cdef int weighing_alloc(WeighingC* weighing, int n) except -1:
    """Allocate n candidates."""
    weighing.n = n
    weighing.candidates = <CandidateC*>calloc(n, sizeof(CandidateC))
    if weighing.candidates == NULL:
        raise NoMemory(f"expected room for {n} candidates; use fewer")
    return 0


cdef void weighing_free(WeighingC* weighing) noexcept nogil:
    free(weighing.candidates)
    weighing.candidates = NULL


cdef void weighing_start(WeighingC* weighing, const StateC* state, RngC* rng) noexcept nogil:
    """Draw the candidates for a decision of the seat to act in `state`. Advances rng."""
    cdef CandidateC* candidate
    cdef uint64_t[MAX_SEATS] played
    cdef int i, k, seat
    for seat in range(state.n_players):
        played[seat] = 0
    weighing.seat = state.seat_to_act
    for i in range(state.n_bids):
        weighing.actions[i] = <uint8_t>state.bids[(state.dealer + 1 + i) % state.n_players]
    for i in range(state.n_plays):
        seat = (state.leaders[i // state.n_players] + i % state.n_players) % state.n_players
        played[seat] |= <uint64_t>1 << state.plays[i]
        weighing.actions[state.n_bids + i] = <uint8_t>(FIRST_CARD_ACTION + state.plays[i])
    weighing.n_actions = state.n_bids + state.n_plays
    weighing.n_replayed = 0
    weighing.is_done = weighing.is_waiting = False
    for i in range(weighing.n):
        candidate = &weighing.candidates[i]
        memcpy(&candidate.dealt, state, sizeof(StateC))
        determinize(&candidate.dealt, state.seat_to_act, rng)
        state_start(&candidate.replayed, state.n_players, state.n_cards, state.dealer, state.trump)
        candidate.replayed.game_round = state.game_round
        candidate.replayed.start_cards = state.start_cards
        for k in range(state.n_players):
            candidate.replayed.hands[k] = candidate.dealt.hands[k] | played[k]
            candidate.replayed.totals[k] = state.totals[k]
        candidate.log_weight = 0.0
    weighing.pick = rng_uniform(rng)


cdef inline bint _is_telling(const WeighingC* weighing, const CandidateC* candidate) noexcept nogil:
    """Return whether a seat other than the searching one has a choice now."""
    return candidate.replayed.seat_to_act != weighing.seat and candidate.legal & (candidate.legal - 1) != 0


cdef bint weighing_collect(WeighingC* weighing, BatchC* batch, int64_t* n_asked) noexcept nogil:
    """Replay until an evaluation is needed, adding rows to batch and `n_asked`; return True when all are weighed."""
    cdef CandidateC* candidate
    cdef int i
    while not weighing.is_waiting and weighing.n_replayed < weighing.n_actions:
        for i in range(weighing.n):
            candidate = &weighing.candidates[i]
            candidate.legal = state_legal(&candidate.replayed)
            if _is_telling(weighing, candidate):
                candidate.row = batch_ask(batch, &candidate.replayed, candidate.legal)
                n_asked[0] += 1
                weighing.is_waiting = True
        if not weighing.is_waiting:
            _weigh(weighing, NULL)
    if not weighing.is_waiting:
        _add_up(weighing)
    return weighing.is_done


cdef void weighing_apply(WeighingC* weighing, const BatchC* batch) noexcept nogil:
    """Weigh the waiting action; the batch has been evaluated."""
    if weighing.is_waiting:
        weighing.is_waiting = False
        _weigh(weighing, batch)


cdef void _weigh(WeighingC* weighing, const BatchC* batch) noexcept nogil:
    cdef CandidateC* candidate
    cdef const EvaluationC* evaluation
    cdef uint64_t below
    cdef int action = weighing.actions[weighing.n_replayed]
    cdef int i
    for i in range(weighing.n):
        candidate = &weighing.candidates[i]
        if _is_telling(weighing, candidate):
            evaluation = &batch.evaluations[candidate.row]
            below = (<uint64_t>1 << (action - state_action_offset(&candidate.replayed))) - 1
            candidate.log_weight += log(max(<double>evaluation.priors[popcount(candidate.legal & below)], LEAST))
        state_apply(&candidate.replayed, action)
    weighing.n_replayed += 1


cdef void _add_up(WeighingC* weighing) noexcept nogil:
    cdef double highest = weighing.candidates[0].log_weight
    cdef double total = 0.0
    cdef int i
    for i in range(1, weighing.n):
        highest = max(highest, weighing.candidates[i].log_weight)
    for i in range(weighing.n):
        total += exp(weighing.candidates[i].log_weight - highest)
        weighing.candidates[i].weight_so_far = total
    weighing.is_done = True


cdef const StateC* weighing_kept(const WeighingC* weighing, int i, int n_kept) noexcept nogil:
    """Return the i-th of the `n_kept` resampled candidates, once all are weighed."""
    cdef double target = (i + weighing.pick) / n_kept * weighing.candidates[weighing.n - 1].weight_so_far
    cdef int k
    for k in range(weighing.n - 1):
        if weighing.candidates[k].weight_so_far > target:
            return &weighing.candidates[k].dealt
    return &weighing.candidates[weighing.n - 1].dealt
