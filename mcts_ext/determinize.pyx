# SPDX-License-Identifier: Apache-2.0
"""Determinization: a uniform deal of the unseen cards consistent with one seat's information set.

The unseen cards go to the other seats and to the undealt rest of the deck. The only constraint is that a seat holds no
card of a suit in which it has shown void. So only seats with voids ("bound") need care: once they hold their cards,
the number of ways to deal the other seats does not depend on which cards were taken.

Two exact methods are tried in turn. *Weighted rejection* draws the bound seats' hands one after the other, each
uniformly from the cards that seat may hold. A sequence of draws has probability prod 1 / C(a_i, h_i), where bound seat
i takes h_i of the a_i cards left that it may hold. Accepting with probability prod C(a_i, h_i) / C(A_i, h_i), where
A_i >= a_i counts all unseen cards that the seat may hold, makes every deal equally likely. After `N_TRIES` rejections
the deal is *constructed*: the number of ways to deal the seats i.. depends on the cards left only through their four
suit counts, so it is summed over suit vectors (memoised), and each seat draws its vector in proportion. A mixture of
two uniform samplers is uniform.
"""

from libc.stdint cimport uint32_t, uint64_t

from mcts_ext.cards cimport full_deck, popcount, random_subset, suit_mask, suits_mask
from mcts_ext.contract cimport N_SUITS
from mcts_ext.rng cimport FOR_DETERMINIZED, RngC, any_int, rng_seed, rng_uniform
from mcts_ext.rules cimport Round, StateC
from mcts_ext.types cimport MAX_SEATS

from mcts_ext.errors import InvalidConfig

cdef enum:
    N_TRIES = 8
    WAYS_SIZE = 14 * 14 * 14        # suit counts of the cards left; the fourth count follows from their sum

cdef struct BoundC:                 # seats that have shown a void
    int      n
    int      seats[MAX_SEATS]
    int      n_cards[MAX_SEATS]     # cards held by each
    uint32_t suits[MAX_SEATS]       # 4-bit set of suits that each may hold

cdef double[53][53] CHOOSE          # binomial coefficients


cdef void _fill_choose() noexcept:
    cdef int n, k
    for n in range(53):
        CHOOSE[n][0] = 1.0
        for k in range(1, 53):
            CHOOSE[n][k] = 0.0 if k > n else CHOOSE[n - 1][k - 1] + CHOOSE[n - 1][k]

_fill_choose()


cdef void determinize(StateC* state, int seat, RngC* rng) noexcept nogil:
    """Redeal in `state` the cards that `seat` cannot see. Advances rng; never fails."""
    _deal(state, seat, N_TRIES, rng)


cdef void _deal(StateC* state, int seat, int n_tries, RngC* rng) noexcept nogil:
    cdef BoundC bound
    cdef uint64_t unseen = full_deck() & ~(state.played | state.hands[seat])
    cdef int other, held, i
    bound.n = 0
    for other in range(state.n_players):
        if other == seat or state.voids[other] == 0 or state.hands[other] == 0:
            continue
        held = popcount(state.hands[other])
        i = bound.n                  # fewest choices first: fewer rejections
        while i > 0 and popcount(bound.suits[i - 1]) > 4 - popcount(state.voids[other]):
            bound.seats[i] = bound.seats[i - 1]
            bound.n_cards[i] = bound.n_cards[i - 1]
            bound.suits[i] = bound.suits[i - 1]
            i -= 1
        bound.seats[i] = other
        bound.n_cards[i] = held
        bound.suits[i] = ~<uint32_t>state.voids[other] & 15
        bound.n += 1
    if bound.n > 0:
        unseen = _deal_bound(state, &bound, unseen, n_tries, rng)
    for other in range(state.n_players):
        if other == seat or state.voids[other] != 0:
            continue
        state.hands[other] = random_subset(unseen, popcount(state.hands[other]), rng)
        unseen ^= state.hands[other]


cdef uint64_t _deal_bound(StateC* state, const BoundC* bound, uint64_t unseen, int n_tries,
                          RngC* rng) noexcept nogil:
    """Deal the bound seats; return the cards left."""
    cdef uint64_t left, open_cards, hand
    cdef double accept
    cdef int _attempt, i
    cdef uint32_t n_open
    cdef uint64_t[MAX_SEATS] allowed
    for i in range(bound.n):
        allowed[i] = unseen & suits_mask(bound.suits[i])
    for _attempt in range(n_tries):
        left = unseen
        accept = 1.0
        for i in range(bound.n):
            open_cards = left & allowed[i]
            n_open = popcount(open_cards)
            if n_open < <uint32_t>bound.n_cards[i]:
                accept = 0.0
                break
            if i > 0:
                accept *= CHOOSE[n_open][bound.n_cards[i]] / CHOOSE[popcount(allowed[i])][bound.n_cards[i]]
            hand = random_subset(open_cards, bound.n_cards[i], rng)
            state.hands[bound.seats[i]] = hand
            left ^= hand
        if accept == 1.0 or (accept > 0.0 and rng_uniform(rng) < accept):
            return left
    return _construct_bound(state, bound, unseen, rng)


cdef uint64_t _construct_bound(StateC* state, const BoundC* bound, uint64_t unseen, RngC* rng) noexcept nogil:
    """Deal the bound seats by counting; return the cards left."""
    cdef double[MAX_SEATS][WAYS_SIZE] ways       # ways to deal seats i.., by cards left; -1: not yet counted
    cdef int[N_SUITS] left
    cdef int[N_SUITS] take
    cdef int i, suit
    cdef double pick
    for i in range(bound.n):
        for suit in range(WAYS_SIZE):
            ways[i][suit] = -1.0
    for suit in range(N_SUITS):
        left[suit] = popcount(unseen & suit_mask(suit))
    for i in range(bound.n):
        pick = rng_uniform(rng) * _count(bound, i, left, ways)
        _sum_over_vectors(bound, i, left, ways, pick, take)
        state.hands[bound.seats[i]] = 0
        for suit in range(N_SUITS):
            left[suit] -= take[suit]
            state.hands[bound.seats[i]] |= random_subset(unseen & suit_mask(suit), take[suit], rng)
        unseen ^= state.hands[bound.seats[i]]
    return unseen


cdef double _count(const BoundC* bound, int i, const int* left, double[WAYS_SIZE]* ways) noexcept nogil:
    """Return the number of ways to deal bound seats i.. from cards with these suit counts."""
    cdef double* known
    cdef int[N_SUITS] take
    if i == bound.n:
        return 1.0
    known = &ways[i][(left[0] * 14 + left[1]) * 14 + left[2]]
    if known[0] < 0.0:
        known[0] = _sum_over_vectors(bound, i, left, ways, -1.0, take)
    return known[0]


cdef double _sum_over_vectors(const BoundC* bound, int i, const int* left, double[WAYS_SIZE]* ways,
                              double stop_at, int* take) noexcept nogil:
    """Sum the ways over every suit vector that seat i may hold.

    With `stop_at` >= 0, stop at the vector whose partial sum exceeds it and leave that vector in `take`.
    """
    cdef int n = bound.n_cards[i]
    cdef int[N_SUITS] most
    cdef int[N_SUITS] after
    cdef int[N_SUITS] vector
    cdef int a, b, c, d, suit
    cdef double total = 0.0
    cdef double term
    for suit in range(N_SUITS):
        most[suit] = left[suit] if bound.suits[i] >> suit & 1 else 0
    for a in range(min(n, most[0]) + 1):
        for b in range(min(n - a, most[1]) + 1):
            for c in range(min(n - a - b, most[2]) + 1):
                d = n - a - b - c
                if d > most[3]:
                    continue
                vector[0] = a
                vector[1] = b
                vector[2] = c
                vector[3] = d
                for suit in range(N_SUITS):
                    after[suit] = left[suit] - vector[suit]
                term = (CHOOSE[left[0]][a] * CHOOSE[left[1]][b] * CHOOSE[left[2]][c] * CHOOSE[left[3]][d]
                        * _count(bound, i + 1, after, ways))
                if term > 0.0:
                    total += term
                    if stop_at >= 0.0:
                        for suit in range(N_SUITS):     # if rounding overshoots, the last possible vector is kept
                            take[suit] = vector[suit]
                        if total > stop_at:
                            return total
    return total


def determinized(Round table not None, int seat, *, seed, stream=0, constructed=False):
    """Return a copy of the round with the cards that `seat` cannot see redealt.

    `constructed` skips the rejection sampler.

    Raises:
        InvalidConfig: if there is no such seat.
    """
    cdef Round twin = table.copy()
    cdef RngC rng
    if not 0 <= seat < table.state.n_players:
        raise InvalidConfig(f"expected a seat in 0..{table.state.n_players - 1}, got {seat}")
    rng_seed(&rng, FOR_DETERMINIZED, any_int(seed), any_int(stream))
    _deal(&twin.state, seat, 0 if constructed else N_TRIES, &rng)
    return twin
