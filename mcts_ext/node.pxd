# SPDX-License-Identifier: Apache-2.0
"""A node of a search tree: a position together with the edge into it."""

from libc.stdint cimport int32_t, uint8_t, uint16_t

cdef extern from *:
    """
    typedef struct {            /* 32 bytes: two nodes a cache line */
        double value_sum;
        float prior, value;
        int32_t n_visits, parent, first_child;
        uint16_t n_in_flight;
        uint8_t action;
        uint8_t n_children : 5, seat : 3;
    } NodeC;
    """
    ctypedef struct NodeC:
        double   value_sum      # W of the edge, from the view of the seat that chose it; one value is in [0, 1]
        float    prior          # P of the edge; siblings sum to 1
        float    value          # the network's value of this position, from the view of the seat to act in it
        int32_t  n_visits       # N, finished
        int32_t  parent         # -1 at the root
        int32_t  first_child    # children are contiguous
        uint16_t n_in_flight    # begun, unfinished
        uint8_t  action         # of the edge
        uint8_t  n_children     # 0 until expanded
        uint8_t  seat           # that chose the edge
