# SPDX-License-Identifier: Apache-2.0
"""Self-play pool: hundreds of rounds played concurrently, so that their leaves fill large batches.

The pool's games are divided into groups. `collect(group)` searches every game of a group until it waits for
evaluations and returns the number of rows to evaluate; `apply(group, ...)` takes the evaluations. While one group's
batch is at the server, another group is searched. Moves, scoring and records all happen inside `collect`, in C: Python
runs once per batch.

A round is a function of (seed, round number) and the network alone: it has its own random stream, and neither the
pool's size nor the batch composition changes it. The rounds of a whole game are played one after the other in one slot
of the pool, each with the totals of the rounds before it.
"""

cimport cython
from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from mcts_ext.batch cimport BatchC, batch_alloc, batch_answer, batch_bytes, batch_clear, batch_free, batch_rows
from mcts_ext.cards cimport lowest, nth_bit
from mcts_ext.contract cimport MAX_HAND, OBSERVATION_BYTES
from mcts_ext.deals cimport ROUNDS_APART, DealsC, deals_check, deals_n_rounds, deals_set, deals_start
from mcts_ext.observe cimport observe
from mcts_ext.rng cimport RngC
from mcts_ext.rules cimport (
    StateC, state_action_offset, state_apply, state_is_over, state_score, state_skip_forced,
)
from mcts_ext.search cimport (
    CountsC, SearchC, search_alloc, search_apply, search_bytes, search_collect, search_free, search_policy,
    search_start,
)
from mcts_ext.selection cimport SearchParamsC, draw_action, search_params, temperature_at
from mcts_ext.tree cimport check_tree
from mcts_ext.types cimport MAX_LEGAL, MAX_SEATS
from mcts_ext.weighing cimport MAX_ACTIONS

import numpy as np

from mcts_ext.errors import InvalidConfig, NoMemory
from mcts_ext.memory import check_memory
from mcts_ext.records import Records

MOST_POINTS = 0xFFFF - ROUNDS_APART * (10 + MAX_HAND)
"""Largest total of a seat before a round, such that the rest of the game cannot overflow it."""

cdef struct RecordC:             # one decision, until its round ends and its value is known
    uint8_t[OBSERVATION_BYTES] observation
    int64_t  round
    int64_t  model_version
    uint64_t legal
    float[MAX_LEGAL] policy      # over the legal actions in rising order
    float[MAX_SEATS] value       # by relative seat: final score / (10 + N)
    int16_t  decision            # moves made earlier in the round, including forced ones
    uint8_t  action              # the action played
    uint8_t  seat
    uint8_t  offset

cdef struct GameC:
    StateC   state
    RngC     rng
    SearchC  search
    int64_t  round_number
    int      n_rounds_left       # in the game, including the current round; 1 for independent rounds
    bint     is_playing
    int      n_records
    RecordC[MAX_ACTIONS] records


@cython.final
cdef class SelfPlayPool:
    """Plays the rounds numbered in `rounds`, `n_games` at a time in `n_groups` groups.

    With a deal of whole games, each of `rounds` is followed by the rest of its game (deals.pyx numbers them).

    Args:
        rounds: `[n]` int64 round numbers, played in this order.
        totals: `[n, S]` uint16, game points before each of them by seat; None means 0.
        seed: seed of the run; a round's random stream comes from (seed, round number).
        deal, search: DealConfig and SearchConfig.
        n_games: concurrent rounds. A group's batch holds at most n_games / n_groups * SearchConfig.rows rows.

    Raises:
        InvalidConfig: if a setting is out of range, or the pool needs more memory than is available.
    """

    cdef GameC* games
    cdef BatchC* batches         # [n_groups]
    cdef SearchParamsC params
    cdef CountsC counts
    cdef RecordC* finished
    cdef int64_t n_finished, finished_capacity
    cdef readonly int n_games, n_groups
    cdef int64_t[::1] rounds
    cdef uint16_t[:, ::1] totals
    cdef int64_t next_round
    cdef int64_t model_version   # of the last evaluation
    cdef int64_t n_playing
    cdef DealsC deals
    cdef list _rows

    def __cinit__(self, rounds, *, totals=None, seed, deal, search, n_games=256, n_groups=2):
        if not 1 <= n_games <= 1_000_000:
            raise InvalidConfig(f"expected 1..1000000 games in the pool, got {n_games}")
        if n_groups < 1:
            raise InvalidConfig(f"expected at least 1 group, got {n_groups}")
        self.n_games = n_games
        self.n_groups = min(n_groups, n_games)
        self.rounds = _integers("rounds", rounds, None, -(1 << 63), (1 << 63) - 1).astype(np.int64)
        if totals is None:
            totals = np.zeros((self.rounds.shape[0], MAX_SEATS), dtype=np.uint16)
        totals = _integers("totals", totals, (self.rounds.shape[0], MAX_SEATS), 0, MOST_POINTS)
        self.totals = np.ascontiguousarray(totals, dtype=np.uint16)
        self.params = search_params(search)
        deals_set(&self.deals, seed, deal)
        check_memory(memory_of_pool(deal, search, n_games=n_games, n_groups=n_groups), of="a pool")
        deals_check(&self.deals, self.rounds)
        self.games = <GameC*>calloc(n_games, sizeof(GameC))
        self.batches = <BatchC*>calloc(self.n_groups, sizeof(BatchC))
        if self.games == NULL or self.batches == NULL:
            raise NoMemory(f"expected room for {n_games} games; play fewer at once")
        max_cards = max(n_cards for _, n_cards in deal.pairs())
        for i in range(n_games):
            search_alloc(&self.games[i].search, &self.params, max_cards)
        self._rows = []
        rows_per_game = search.rows
        for group in range(self.n_groups):
            batch_alloc(&self.batches[group], rows_per_game * (self._first(group + 1) - self._first(group)))
            self._rows.append(batch_rows(&self.batches[group]))

    def __dealloc__(self):
        cdef int i
        if self.games != NULL:
            for i in range(self.n_games):
                search_free(&self.games[i].search, &self.params)
        if self.batches != NULL:
            for i in range(self.n_groups):
                batch_free(&self.batches[i])
        free(self.games)
        free(self.batches)
        free(self.finished)

    def collect(self, int group):
        """Search a group until its leaves wait; return the number of rows to evaluate, 0 if it has no round left.

        Calling it again before `apply` returns the same batch.
        """
        cdef BatchC* batch = self._batch(group)
        cdef int i
        if batch.n_rows > 0:
            return batch.n_rows
        with nogil:
            for i in range(self._first(group), self._first(group + 1)):
                self._advance(&self.games[i], batch)
        self.counts.evaluations += batch.n_rows
        return batch.n_rows

    def observations(self, int group):
        """Return the rows of the group's last `collect`, `[rows, F]` uint8; valid until `apply`."""
        return self._rows[group][: self._batch(group).n_rows]

    def apply(
        self, int group, const float[:, ::1] logits not None, const float[:, ::1] values not None, *, model_version=0
    ):
        """Apply the network's evaluations to the rows of the group's last `collect`.

        Args:
            logits: `[rows, A]` unmasked.
            values: `[rows, S]` by relative seat, in [0, 1].
            model_version: version of the network, stored in the records.

        Raises:
            InvalidEvaluation: on wrong shapes, NaN or infinity; nothing was applied, the call may be repeated.
        """
        cdef BatchC* batch = self._batch(group)
        cdef int64_t version = model_version
        cdef int i
        batch_answer(batch, logits, values)
        if batch.n_rows == 0:
            return
        with nogil:
            for i in range(self._first(group), self._first(group + 1)):
                search_apply(&self.games[i].search, &self.params, batch)
        self.model_version = version
        batch_clear(batch)

    def take_records(self):
        """Return the decisions of the rounds finished since the last call, in the order in which the rounds ended."""
        cdef int64_t n = self.n_finished
        records = Records.empty(n)
        if n == 0:
            return records
        found = np.asarray(<RecordC[:n]>self.finished)
        for name in vars(records).keys() - {"policy"}:
            getattr(records, name)[:] = found[name]
        cdef float[:, ::1] policies = records.policy
        cdef RecordC* record
        cdef uint64_t legal
        cdef int64_t i
        cdef int k
        for i in range(n):
            record = &self.finished[i]
            legal = record.legal
            k = 0
            while legal:
                policies[i, record.offset + <int>lowest(legal)] = record.policy[k]
                legal &= legal - 1
                k += 1
        self.n_finished = 0
        return records

    def check(self):
        """Raise ValueError unless the invariants of every tree at rest hold (see check_tree)."""
        for i in range(self.n_games):
            for k in range(self.params.determinizations):
                if self.games[i].search.trees[k].n_nodes and not self.games[i].search.trees[k].n_waiting:
                    check_tree(&self.games[i].search.trees[k], self.params.leaves_per_tree == 1)

    @property
    def n_unfinished(self):
        """Number of `rounds` not finished (with a deal of whole games: whose game is not finished)."""
        return self.rounds.shape[0] - self.next_round + self.n_playing

    @property
    def stats(self):
        """Counters since the start: rounds, decisions, simulations, leaves, evaluations (rows sent)."""
        return dict(self.counts)

    cdef BatchC* _batch(self, int group) except NULL:
        if not 0 <= group < self.n_groups:
            raise InvalidConfig(f"expected a group in 0..{self.n_groups - 1}, got {group}")
        return &self.batches[group]

    cdef int _first(self, int group) noexcept nogil:
        """Return the first game of a group; groups are contiguous."""
        return <int>(<int64_t>self.n_games * group // self.n_groups)

    cdef int _advance(self, GameC* game, BatchC* batch) except -1 nogil:
        """Advance the game until it waits for rows of the batch, or no round is left."""
        while True:
            if not game.is_playing:
                if self.next_round == self.rounds.shape[0]:
                    return 0
                self._start_next(game)
            if not state_is_over(&game.state):       # over already if allocating room for its records failed
                if not search_collect(&game.search, &self.params, batch, &self.counts):
                    return 0
                self._move(game)
            if state_is_over(&game.state):
                self._finish_round(game)
            else:
                search_start(&game.search, &self.params, &game.state, &game.rng)

    cdef void _start_next(self, GameC* game) noexcept nogil:
        """Begin the next of `rounds`."""
        game.round_number = self.rounds[self.next_round]
        game.n_rounds_left = deals_n_rounds(&self.deals, game.round_number)
        game.is_playing = True
        self._start_round(game, &self.totals[self.next_round, 0])
        self.next_round += 1
        self.n_playing += 1

    cdef void _start_round(self, GameC* game, const uint16_t* totals) noexcept nogil:
        deals_start(&self.deals, game.round_number, totals, &game.state, &game.rng)
        game.n_records = 0
        search_start(&game.search, &self.params, &game.state, &game.rng)    # the first bid is never forced

    cdef void _move(self, GameC* game) noexcept nogil:
        """Record the finished search, draw a move from its policy, play it and any forced moves after it."""
        cdef StateC* state = &game.state
        cdef RecordC* record = &game.records[game.n_records]
        cdef double temperature
        cdef int chosen
        memset(record, 0, sizeof(RecordC))
        observe(state, record.observation)
        search_policy(&game.search, &self.params, record.policy)
        record.legal = game.search.legal
        record.round = game.round_number
        record.model_version = self.model_version
        record.decision = <int16_t>(state.n_bids + state.n_plays)
        record.seat = state.seat_to_act
        record.offset = <uint8_t>state_action_offset(state)
        temperature = temperature_at(
            &self.params, <double>(state.n_bids + state.n_plays) / (state.n_players * (1 + state.n_cards)))
        chosen = draw_action(record.policy, game.search.n_legal, temperature, &game.rng)
        record.action = <uint8_t>(record.offset + nth_bit(record.legal, chosen))
        game.n_records += 1
        self.counts.decisions += 1
        state_apply(state, record.action)
        state_skip_forced(state)

    cdef int _finish_round(self, GameC* game) except -1 nogil:
        """Fill in the outcome of every record, move the records to `finished` and start the game's next round."""
        cdef int64_t needed = self.n_finished + game.n_records
        cdef RecordC* grown
        cdef RecordC* record
        cdef uint16_t[MAX_SEATS] totals
        cdef int i, k, n = game.state.n_players
        if needed > self.finished_capacity:
            grown = <RecordC*>realloc(self.finished, <size_t>(2 * needed) * sizeof(RecordC))
            if grown == NULL:
                raise NoMemory("expected room for finished rounds; take records more often")
            self.finished = grown
            self.finished_capacity = 2 * needed
        for i in range(game.n_records):
            record = &game.records[i]
            for k in range(n):
                record.value[k] = <float>state_score(&game.state, (record.seat + k) % n) / (10 + game.state.n_cards)
            memcpy(&self.finished[self.n_finished], record, sizeof(RecordC))
            self.n_finished += 1
        self.counts.rounds += 1
        game.n_rounds_left -= 1
        if game.n_rounds_left > 0:
            memcpy(totals, game.state.totals, sizeof(totals))
            for k in range(n):
                totals[k] += <uint16_t>state_score(&game.state, k)
            game.round_number += 1
            self._start_round(game, totals)
        else:
            game.is_playing = False
            self.n_playing -= 1
        return 0


def memory_of_pool(deal, search, *, int64_t n_games, int64_t n_groups):
    """Return the bytes used by a `SelfPlayPool`, including one finished round per game."""
    cdef SearchParamsC params = search_params(search)
    cdef int64_t max_cards = max(n_cards for _, n_cards in deal.pairs())
    cdef int64_t game = sizeof(GameC) + MAX_ACTIONS * sizeof(RecordC) + search_bytes(&params, <int>max_cards)
    cdef int64_t per_group = -(-n_games // n_groups) * <int64_t>search.rows
    return n_games * game + min(n_groups, n_games) * batch_bytes(per_group)


def _integers(name, numbers, shape, low, high):
    """Return `numbers` as an integer array; raise InvalidConfig on a wrong shape (None: one axis), type or range."""
    array = np.asarray(numbers)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.int64)
    is_right = array.ndim == 1 if shape is None else array.shape == shape
    if not is_right or array.dtype.kind not in "iu" or (array.size and not low <= array.min() <= array.max() <= high):
        wanted = "[n]" if shape is None else list(shape)
        raise InvalidConfig(
            f"expected {name} {wanted}, integers in {low}..{high}, got {array.dtype} {list(array.shape)}"
        )
    return array
