# SPDX-License-Identifier: Apache-2.0
"""Batch of observations sent to the network and the evaluations that come back."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from mcts_ext.rules cimport StateC
from mcts_ext.types cimport MAX_LEGAL, MAX_SEATS

cdef enum:
    MAX_ROWS = 1 << 28          # rows per batch: row indices and the hash table of twice that size are int32

cdef struct EvaluationC:
    float   priors[MAX_LEGAL]   # P over the legal actions in rising order
    float   values[MAX_SEATS]   # by relative seat, in [0, 1]

cdef struct BatchC:
    uint8_t*     rows           # [capacity + 1, OBSERVATION_BYTES] of batch_rows; the last row is scratch
    uint64_t*    hashes         # [capacity]
    uint64_t*    legal          # [capacity] mask of the row's legal actions
    uint8_t*     offsets        # [capacity] action of the mask's lowest bit
    EvaluationC* evaluations    # [capacity], filled by batch_answer
    int32_t*     table          # open addressing: hash -> row + 1
    int32_t      table_mask
    int32_t      capacity
    int32_t      n_rows

cdef int64_t batch_bytes(int64_t capacity) noexcept nogil
cdef int batch_alloc(BatchC* batch, int64_t capacity) except -1
cdef object batch_rows(BatchC* batch)
cdef void batch_free(BatchC* batch) noexcept nogil
cdef void batch_clear(BatchC* batch) noexcept nogil
cdef int32_t batch_ask(BatchC* batch, const StateC* state, uint64_t legal) noexcept nogil
cdef int batch_answer(BatchC* batch, const float[:, ::1] logits, const float[:, ::1] values) except -1
