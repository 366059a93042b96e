# SPDX-License-Identifier: Apache-2.0
"""Random streams: xoshiro256++ (Blackman and Vigna 2019, https://prng.di.unimi.it), one stream per purpose and round.

A stream is a struct passed by pointer. It is seeded from (run seed, round number), so a round replays identically
whatever the number of workers or the size of the pool. Every function here advances the stream it is given.

Each purpose has its own constant, so that one seed used for two purposes gives two independent streams: a search must
not reproduce the deal that is hidden from it. A round of self-play uses a single stream for its deal, root noise,
determinizations and moves.
"""

from cpython.number cimport PyNumber_Index
from libc.math cimport cos, exp, log, sqrt
from libc.stdint cimport uint32_t, uint64_t

from mcts_ext.types cimport MAX_LEGAL

cdef enum:
    FOR_ROUND = 0               # self-play: an independent round
    FOR_GAME = 1                # self-play: the table of a whole game, and its rounds
    FOR_DEAL = 2                # Round.deal
    FOR_SEARCH = 3              # Search: root noise, determinizations, candidates
    FOR_DETERMINIZED = 4        # determinized
    FOR_BENCHMARK = 5           # playouts, priors and values of benchmarks
    FOR_PIMC = 6                # the worlds and ties of the PIMC bot

cdef struct RngC:
    uint64_t s[4]

cdef inline uint64_t splitmix64(uint64_t* x) noexcept nogil:
    x[0] += <uint64_t>0x9E3779B97F4A7C15
    cdef uint64_t z = x[0]
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)

cdef inline uint64_t any_int(number) except? 0:
    """Return the lowest 64 bits of an integer of any size."""
    return <uint64_t>(PyNumber_Index(number) & 0xFFFFFFFFFFFFFFFF)

cdef inline void rng_seed(RngC* rng, uint64_t purpose, uint64_t seed, uint64_t stream) noexcept nogil:
    """Start a stream; streams with another purpose, seed or stream number are independent."""
    cdef uint64_t x = seed ^ (purpose * <uint64_t>0xC3D73B6895762805)
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

cdef inline double rng_log_gamma(RngC* rng, double alpha) noexcept nogil:
    """Logarithm of a Gamma(alpha, 1) draw, alpha > 0 (Marsaglia and Tsang 2000; with their boost for alpha < 1).

    The draw itself underflows to 0 for small alpha: Gamma(0.001) has a median of e^-692.
    """
    cdef double boost = 0.0
    cdef double d, c, x, v
    if alpha < 1.0:
        boost = log(1.0 - rng_uniform(rng)) / alpha
        alpha += 1.0
    d = alpha - 1.0 / 3.0
    c = 1.0 / sqrt(9.0 * d)
    while True:
        x = rng_normal(rng)
        v = 1.0 + c * x
        if v > 0.0:
            v = v * v * v
            if log(1.0 - rng_uniform(rng)) < 0.5 * x * x + d - d * v + d * log(v):
                return boost + log(d * v)

cdef inline void rng_dirichlet(RngC* rng, double alpha, int n, float* shares) noexcept nogil:
    """Symmetric Dirichlet(alpha) over n >= 1 shares, which sum to 1."""
    cdef double total = 0.0
    cdef double highest
    cdef double[MAX_LEGAL] logs
    cdef int i
    for i in range(n):
        logs[i] = rng_log_gamma(rng, alpha)
    highest = logs[0]
    for i in range(1, n):
        highest = max(highest, logs[i])
    for i in range(n):
        logs[i] = exp(logs[i] - highest)
        total += logs[i]
    for i in range(n):
        shares[i] = <float>(logs[i] / total)
