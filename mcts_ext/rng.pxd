# SPDX-License-Identifier: Apache-2.0
"""Random streams: xoshiro256++ (Blackman and Vigna 2019, https://prng.di.unimi.it), one stream per round.

A stream is a struct passed by pointer. Seeding from (run seed, round number) makes a round replay alike whatever the
number of workers or the size of the pool. Every function here advances the stream it is given.
"""

from libc.math cimport cos, log, pow, sqrt
from libc.stdint cimport uint32_t, uint64_t

cdef struct RngC:
    uint64_t s[4]

cdef inline uint64_t splitmix64(uint64_t* x) noexcept nogil:
    x[0] += <uint64_t>0x9E3779B97F4A7C15
    cdef uint64_t z = x[0]
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)

cdef inline void rng_seed(RngC* rng, uint64_t seed, uint64_t stream) noexcept nogil:
    """Start the stream of one round: two rounds, or two seeds, share nothing."""
    cdef uint64_t x = seed
    x = splitmix64(&x) ^ (stream * <uint64_t>0xD1342543DE82EF95)
    cdef int i
    for i in range(4):
        rng.s[i] = splitmix64(&x)

cdef inline uint64_t rotl(uint64_t x, int k) noexcept nogil:
    return (x << k) | (x >> (64 - k))

cdef inline uint64_t rng_next(RngC* rng) noexcept nogil:
    cdef uint64_t* s = rng.s
    cdef uint64_t result = rotl(s[0] + s[3], 23) + s[0]
    cdef uint64_t t = s[1] << 17
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = rotl(s[3], 45)
    return result

cdef inline uint32_t rng_below(RngC* rng, uint32_t n) noexcept nogil:
    """Uniform in 0..n-1, n >= 1: exact (Lemire 2019, https://arxiv.org/abs/1805.10941)."""
    cdef uint64_t m = (rng_next(rng) >> 32) * n
    cdef uint32_t threshold = 0 - n
    if <uint32_t>m < n:
        threshold %= n
        while <uint32_t>m < threshold:
            m = (rng_next(rng) >> 32) * n
    return <uint32_t>(m >> 32)

cdef inline double rng_uniform(RngC* rng) noexcept nogil:
    """Uniform in [0, 1), 53 bits."""
    return (rng_next(rng) >> 11) * (1.0 / 9007199254740992.0)

cdef inline double rng_normal(RngC* rng) noexcept nogil:
    """Standard normal (Box and Muller 1958)."""
    cdef double u = 1.0 - rng_uniform(rng)
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * rng_uniform(rng))

cdef inline double rng_gamma(RngC* rng, double alpha) noexcept nogil:
    """Gamma(alpha, 1), alpha > 0 (Marsaglia and Tsang 2000; below 1 by their boost)."""
    cdef double boost = 1.0
    cdef double d, c, x, v
    if alpha < 1.0:
        boost = pow(1.0 - rng_uniform(rng), 1.0 / alpha)
        alpha += 1.0
    d = alpha - 1.0 / 3.0
    c = 1.0 / sqrt(9.0 * d)
    while True:
        x = rng_normal(rng)
        v = 1.0 + c * x
        if v > 0.0:
            v = v * v * v
            if log(1.0 - rng_uniform(rng)) < 0.5 * x * x + d - d * v + d * log(v):
                return boost * d * v
