# SPDX-License-Identifier: Apache-2.0
"""Rounds in lockstep, for a learner that chooses every action itself: Python runs once per batch.

Forced moves are played at once, so a table either has a seat with a choice to make or its round is over. Each table has
a seed from which hands are drawn: a draw is a function of the seed, the moves made and the information set. So branches
of one position meet the same luck as long as they make the same number of moves.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from mcts_ext.cards cimport lowest, popcount
from mcts_ext.contract cimport OBSERVATION_BYTES
from mcts_ext.determinize cimport determinize
from mcts_ext.observe cimport observe
from mcts_ext.rng cimport FOR_DETERMINIZED, RngC, any_int, rng_seed
from mcts_ext.rules cimport (
    Round, StateC, state_action_offset, state_apply, state_is_over, state_legal, state_score, state_skip_forced,
)
from mcts_ext.types cimport DECK, MAX_SEATS

import numpy as np

from mcts_ext.errors import IllegalAction, InvalidConfig, NoMemory


@cython.final
cdef class Tables:
    """`n` rounds; methods take the numbers of tables whose rounds are not over, `[k]` int64."""

    cdef StateC* states
    cdef uint64_t* seeds
    cdef Py_ssize_t n

    def __cinit__(self, rounds, seeds):
        rounds, seeds = list(rounds), list(seeds)
        self._allocate(len(rounds))
        if len(seeds) != self.n:
            raise InvalidConfig(f"expected {self.n} seeds, one per round, got {len(seeds)}")
        for i in range(self.n):
            one = rounds[i]
            if not isinstance(one, Round):
                raise TypeError(f"expected a Round, got {type(one).__name__}")
            self.states[i] = (<Round>one).state
            self.seeds[i] = any_int(seeds[i])
            state_skip_forced(&self.states[i])

    def __dealloc__(self):
        free(self.states)
        free(self.seeds)

    def __len__(self):
        return self.n

    def seats_to_act(self):
        """Return the absolute seats to act, `[n]` int64; -1 where the round is over."""
        seats = np.full(self.n, -1, dtype=np.int64)
        cdef int64_t[::1] view = seats
        cdef Py_ssize_t i
        for i in range(self.n):
            if not state_is_over(&self.states[i]):
                view[i] = self.states[i].seat_to_act
        return seats

    def observe(self, const int64_t[::1] tables not None, *, bint drawn):
        """Return the observations `[k, F]` of the seats to act.

        Args:
            drawn: draw the other hands from the seat's information set; otherwise leave them out.
        """
        rows = np.empty((tables.shape[0], OBSERVATION_BYTES), dtype=np.uint8)
        cdef uint8_t[:, ::1] view = rows
        cdef Py_ssize_t i
        cdef int seat
        cdef StateC state
        cdef RngC rng
        self._check(tables)
        for i in range(tables.shape[0]):
            state = self.states[tables[i]]
            if drawn:
                rng_seed(&rng, FOR_DETERMINIZED, self.seeds[tables[i]], state.n_bids + state.n_plays)
                determinize(&state, state.seat_to_act, &rng)
            else:
                for seat in range(state.n_players):
                    if seat != state.seat_to_act:
                        state.hands[seat] = 0
            observe(&state, &view[i, 0])
        return rows

    def apply(self, const int64_t[::1] tables not None, const int64_t[::1] actions not None):
        """Play an action at each of the tables.

        Raises:
            IllegalAction: if the rules forbid one; those before it were played.
        """
        cdef Py_ssize_t i
        cdef int64_t bit
        cdef uint64_t legal
        cdef StateC* state
        self._check(tables)
        if actions.shape[0] != tables.shape[0]:
            raise InvalidConfig(f"expected {tables.shape[0]} actions, one per table, got {actions.shape[0]}")
        for i in range(tables.shape[0]):
            state = &self.states[tables[i]]
            legal = 0 if state_is_over(state) else state_legal(state)  # a table may be named twice
            bit = actions[i] - state_action_offset(state)
            if not 0 <= bit < DECK or not legal >> bit & 1:
                raise IllegalAction(actions[i], None if state_is_over(state) else state.seat_to_act, [
                    state_action_offset(state) + bit for bit in range(DECK) if legal >> bit & 1
                ])
            state_apply(state, <int>actions[i])
            state_skip_forced(state)

    def branches(self, const int64_t[::1] tables not None):
        """Return new tables after each legal action of each of `tables`.

        Returns:
            The new tables, and for each the index into `tables` and the action, `[b]` int64.
        """
        cdef Py_ssize_t i, n = 0
        cdef uint64_t legal
        cdef Tables found
        cdef StateC* state
        self._check(tables)
        for i in range(tables.shape[0]):
            n += popcount(state_legal(&self.states[tables[i]]))
        parents, actions = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        cdef int64_t[::1] parent_view = parents
        cdef int64_t[::1] action_view = actions
        found = Tables.__new__(Tables, (), ())
        found._allocate(n)
        n = 0
        for i in range(tables.shape[0]):
            state = &self.states[tables[i]]
            legal = state_legal(state)
            while legal:
                parent_view[n] = i
                action_view[n] = state_action_offset(state) + <int>lowest(legal)
                found.states[n] = state[0]
                found.seeds[n] = self.seeds[tables[i]]
                state_apply(&found.states[n], <int>action_view[n])
                state_skip_forced(&found.states[n])
                legal &= legal - 1
                n += 1
        return found, parents, actions

    @staticmethod
    def joined(parts):
        """Return copies of the tables of all parts, in their order."""
        cdef Tables found = Tables.__new__(Tables, (), ())
        cdef Tables part
        cdef Py_ssize_t first = 0
        parts = list(parts)
        if not all(isinstance(one, Tables) for one in parts):
            raise TypeError(f"expected Tables, got {[type(one).__name__ for one in parts]}")
        found._allocate(sum(map(len, parts)))
        for part in parts:
            memcpy(&found.states[first], part.states, part.n * sizeof(StateC))
            memcpy(&found.seeds[first], part.seeds, part.n * sizeof(uint64_t))
            first += part.n
        return found

    def scores(self):
        """Return the points `[n, S]` int64 by absolute seat, 0 for missing seats; all rounds must be over."""
        points = np.zeros((self.n, MAX_SEATS), dtype=np.int64)
        cdef int64_t[:, ::1] view = points
        cdef Py_ssize_t i
        cdef int seat
        for i in range(self.n):
            if not state_is_over(&self.states[i]):
                raise ValueError(f"expected finished rounds, got one in progress at table {i}; play on")
            for seat in range(self.states[i].n_players):
                view[i, seat] = state_score(&self.states[i], seat)
        return points

    cdef int _allocate(self, Py_ssize_t n) except -1:
        free(self.states)
        free(self.seeds)
        self.states = <StateC*>calloc(max(n, 1), sizeof(StateC))
        self.seeds = <uint64_t*>calloc(max(n, 1), sizeof(uint64_t))
        self.n = n
        if self.states == NULL or self.seeds == NULL:
            raise NoMemory(f"expected room for {n} tables; play fewer at once")
        return 0

    cdef int _check(self, const int64_t[::1] tables) except -1:
        """Raise InvalidConfig unless every one of `tables` exists and its round is not over."""
        cdef Py_ssize_t i
        for i in range(tables.shape[0]):
            if not 0 <= tables[i] < self.n or state_is_over(&self.states[tables[i]]):
                raise InvalidConfig(f"expected tables in 0..{self.n - 1} whose rounds are not over, got {tables[i]}")
        return 0
