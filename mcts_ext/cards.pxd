# SPDX-License-Identifier: Apache-2.0
"""Sets of cards as 52-bit masks: bit 13 * suit + rank."""

from libc.stdint cimport uint32_t, uint64_t

from mcts_ext.rng cimport RngC, rng_below

cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__BMI2__)
    #include <immintrin.h>
    #endif
    static inline uint32_t blob_popcount(uint64_t bits) { return (uint32_t)__builtin_popcountll(bits); }
    static inline uint32_t blob_lowest(uint64_t bits) { return (uint32_t)__builtin_ctzll(bits); }
    /* Index of the n-th set bit, n from 0. */
    static inline uint32_t blob_nth(uint64_t bits, uint32_t n) {
    #if defined(__BMI2__)
        return (uint32_t)__builtin_ctzll(_pdep_u64(1ull << n, bits));
    #else
        while (n--) bits &= bits - 1;
        return (uint32_t)__builtin_ctzll(bits);
    #endif
    }
    """
    uint32_t popcount "blob_popcount"(uint64_t bits) noexcept nogil
    uint32_t lowest "blob_lowest"(uint64_t bits) noexcept nogil           # bits != 0
    uint32_t nth_bit "blob_nth"(uint64_t bits, uint32_t n) noexcept nogil  # n < popcount(bits)

cdef inline uint64_t suit_mask(uint32_t suit) noexcept nogil:
    return (<uint64_t>0x1FFF) << (13 * suit)

cdef inline uint64_t suits_mask(uint32_t suits) noexcept nogil:
    """All cards of the suits in a 4-bit set."""
    cdef uint64_t cards = 0
    cdef uint32_t suit
    for suit in range(4):
        if suits >> suit & 1:
            cards |= suit_mask(suit)
    return cards

cdef inline uint32_t suit_of(uint32_t card) noexcept nogil:
    return (card * 79) >> 10        # card // 13 for card < 52

cdef inline uint64_t random_subset(uint64_t cards, uint32_t n, RngC* rng) noexcept nogil:
    """n different cards of a set, uniform over subsets; n <= popcount(cards). Advances rng."""
    cdef uint64_t taken = 0
    cdef uint64_t card
    cdef uint32_t left = popcount(cards)
    while n > 0:
        card = (<uint64_t>1) << nth_bit(cards, rng_below(rng, left))
        cards ^= card
        taken |= card
        left -= 1
        n -= 1
    return taken

cdef inline uint64_t full_deck() noexcept nogil:
    return (<uint64_t>1 << 52) - 1
