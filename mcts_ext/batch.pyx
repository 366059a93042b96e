# SPDX-License-Identifier: Apache-2.0
"""Batch of observations sent to the network and the evaluations that come back.

Leaves of one batch with the same observation share a row. This changes no result, up to a collision of 64-bit hashes,
which alone are compared: an evaluation is a function of the observation alone.
"""

from libc.math cimport INFINITY, expf, isfinite
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from mcts_ext.cards cimport lowest
from mcts_ext.contract cimport N_ACTIONS, OBSERVATION_BYTES
from mcts_ext.observe cimport observation_hash, observe
from mcts_ext.rules cimport StateC, state_action_offset
from mcts_ext.types cimport MAX_LEGAL, MAX_SEATS

import numpy as np

from mcts_ext.errors import InvalidConfig, InvalidEvaluation, NoMemory

cdef int64_t _table_size(int64_t capacity) noexcept nogil:
    """Return the hash table's size: a power of two, at most half full."""
    cdef int64_t size = 16
    while size < 2 * capacity:
        size *= 2
    return size


cdef int64_t batch_bytes(int64_t capacity) noexcept nogil:
    """Return the memory of a batch in bytes, including the rows owned by the caller."""
    cdef int64_t row = OBSERVATION_BYTES + 2 * sizeof(uint64_t) + sizeof(uint8_t) + sizeof(EvaluationC)
    return capacity * row + OBSERVATION_BYTES + _table_size(capacity) * <int64_t>sizeof(int32_t)


cdef int batch_alloc(BatchC* batch, int64_t capacity) except -1:
    """Allocate everything but `rows`."""
    cdef size_t table_size
    memset(batch, 0, sizeof(BatchC))
    if not 1 <= capacity <= MAX_ROWS:
        raise InvalidConfig(f"expected a batch of 1..{MAX_ROWS} rows, got {capacity}; play fewer games at once")
    table_size = _table_size(capacity)
    batch.capacity = <int32_t>capacity
    batch.table_mask = <int32_t>(table_size - 1)
    batch.hashes = <uint64_t*>malloc(<size_t>capacity * sizeof(uint64_t))
    batch.legal = <uint64_t*>malloc(<size_t>capacity * sizeof(uint64_t))
    batch.offsets = <uint8_t*>malloc(<size_t>capacity)
    batch.evaluations = <EvaluationC*>malloc(<size_t>capacity * sizeof(EvaluationC))
    batch.table = <int32_t*>calloc(table_size, sizeof(int32_t))
    if (batch.hashes == NULL or batch.legal == NULL or batch.offsets == NULL or batch.evaluations == NULL
            or batch.table == NULL):
        batch_free(batch)
        raise NoMemory(f"expected room for a batch of {capacity} rows; play fewer games at once")
    return 0


cdef object batch_rows(BatchC* batch):
    """Allocate `rows` and return their array, which the caller keeps as long as the batch."""
    rows = np.zeros((batch.capacity + 1, OBSERVATION_BYTES), dtype=np.uint8)
    cdef uint8_t[:, ::1] view = rows
    batch.rows = &view[0, 0]
    return rows


cdef void batch_free(BatchC* batch) noexcept nogil:
    free(batch.hashes)
    free(batch.legal)
    free(batch.offsets)
    free(batch.evaluations)
    free(batch.table)
    memset(batch, 0, sizeof(BatchC))


cdef void batch_clear(BatchC* batch) noexcept nogil:
    batch.n_rows = 0
    memset(batch.table, 0, (<size_t>batch.table_mask + 1) * sizeof(int32_t))


cdef int32_t batch_ask(BatchC* batch, const StateC* state, uint64_t legal) noexcept nogil:
    """Request the evaluation of a position; return the row that will hold it."""
    cdef uint8_t* row = batch.rows + <long>batch.n_rows * OBSERVATION_BYTES
    cdef uint64_t key
    cdef int32_t place, held
    observe(state, row)
    key = observation_hash(row)
    place = <int32_t>(key >> 32) & batch.table_mask
    while batch.table[place] != 0:
        held = batch.table[place] - 1
        if batch.hashes[held] == key:
            return held
        place = (place + 1) & batch.table_mask
    held = batch.n_rows
    batch.n_rows += 1
    batch.table[place] = held + 1
    batch.hashes[held] = key
    batch.legal[held] = legal
    batch.offsets[held] = <uint8_t>state_action_offset(state)
    return held


cdef int batch_answer(BatchC* batch, const float[:, ::1] logits, const float[:, ::1] values) except -1:
    """Convert the network's outputs for all rows to evaluations.

    `logits`: `[n_rows, A]`, softmax over the legal actions gives the priors. `values`: `[n_rows, S]`.

    Raises:
        InvalidEvaluation: if the shapes do not match the batch, or a number is not finite.
    """
    cdef bint is_sound
    if (logits.shape[0] != batch.n_rows or logits.shape[1] != N_ACTIONS or values.shape[0] != batch.n_rows
            or values.shape[1] != MAX_SEATS):
        raise InvalidEvaluation(
            f"expected logits [{batch.n_rows}, {N_ACTIONS}] and values [{batch.n_rows}, {MAX_SEATS}] for the collected "
            f"rows, got [{logits.shape[0]}, {logits.shape[1]}] and [{values.shape[0]}, {values.shape[1]}]"
        )
    if batch.n_rows == 0:
        return 0
    with nogil:
        is_sound = _evaluations(batch, &logits[0, 0], &values[0, 0])
    if not is_sound:
        raise InvalidEvaluation("expected finite logits and values, got NaN or infinity; publish another network")
    return 0


cdef bint _evaluations(BatchC* batch, const float* logits, const float* values) noexcept nogil:
    """Fill in the evaluations; return False if a number is not finite."""
    cdef EvaluationC* evaluation
    cdef const float* row
    cdef uint64_t legal
    cdef float highest, total
    cdef int32_t i, n, k
    for i in range(batch.n_rows):
        evaluation = &batch.evaluations[i]
        row = logits + <long>i * N_ACTIONS + batch.offsets[i]
        legal = batch.legal[i]
        highest = -INFINITY         # subtracted before exp: the most probable action gets exp(0)
        n = 0
        while legal:
            evaluation.priors[n] = row[lowest(legal)]
            if not isfinite(evaluation.priors[n]):
                return False
            if evaluation.priors[n] > highest:
                highest = evaluation.priors[n]
            legal &= legal - 1
            n += 1
        total = 0.0
        for k in range(n):
            evaluation.priors[k] = expf(evaluation.priors[k] - highest)
            total += evaluation.priors[k]
        total = 1.0 / total
        for k in range(n):
            evaluation.priors[k] *= total
        for k in range(n, MAX_LEGAL):
            evaluation.priors[k] = 0.0
        row = values + <long>i * MAX_SEATS
        for k in range(MAX_SEATS):
            if not isfinite(row[k]):
                return False
            evaluation.values[k] = min(max(row[k], <float>0.0), <float>1.0)
    return True
