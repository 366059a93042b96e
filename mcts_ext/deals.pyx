# SPDX-License-Identifier: Apache-2.0
"""Deals of self-play by round number, and the sequence of rounds in a whole game.

An independent round is a function of (seed, number). The rounds of game g are numbered from `ROUNDS_APART * g`:
players, cards and first dealer come from the game's random stream, hands from the round's stream; the caller passes
the totals. A game can therefore resume at any of its rounds.
"""

from libc.string cimport memcpy

from mcts_ext.rng cimport FOR_GAME, FOR_ROUND, any_int, rng_below, rng_seed
from mcts_ext.rules cimport state_deal

from mcts_ext.config import DealConfig
from mcts_ext.errors import InvalidConfig

TRUMPS = (0, 1, 2, 3, None)
"""Trump of round r of a game is `TRUMPS[r % 5]`."""

cdef struct TableC:              # shared by the rounds of one game
    int n_players
    int n_cards                  # of an independent round, or of the largest hand
    int dealer                   # of the first round


cdef inline int _n_rounds(int n_players, int start_cards) noexcept nogil:
    return 2 * (start_cards - 1) + n_players


cdef inline int _hand_size(int n_players, int start_cards, int index) noexcept nogil:
    return max(start_cards - index, 1, start_cards + 1 + index - _n_rounds(n_players, start_cards))


def hand_sizes(int n_players, int start_cards):
    """Return the hand size of each round of a game: C down to 2, then one card once per player, then 2 up to C."""
    return [_hand_size(n_players, start_cards, index) for index in range(_n_rounds(n_players, start_cards))]


cdef int deals_set(DealsC* deals, seed, deal) except -1:
    """Fill in a DealsC from a DealConfig."""
    if not isinstance(deal, DealConfig):                # it has at most 57 pairs
        raise TypeError(f"expected a DealConfig, got {type(deal).__name__}")
    pairs = deal.pairs()
    deals.seed = any_int(seed)
    deals.is_games = deal.unit == "game"
    deals.n_pairs = len(pairs)
    for i, (n_players, n_cards) in enumerate(pairs):
        deals.pairs[i][0] = n_players
        deals.pairs[i][1] = n_cards
    return 0


cdef int deals_check(const DealsC* deals, const int64_t[::1] numbers) except -1:
    """Raise InvalidConfig unless every number is a valid round number."""
    cdef Py_ssize_t i
    for i in range(numbers.shape[0]):
        if deals_n_rounds(deals, numbers[i]) < 1:
            raise InvalidConfig(f"expected the number of a round within a game, got {numbers[i]}")
    return 0


cdef void _draw_table(const DealsC* deals, TableC* table, RngC* rng) noexcept nogil:
    cdef int pair = rng_below(rng, deals.n_pairs)
    table.n_players = deals.pairs[pair][0]
    table.n_cards = deals.pairs[pair][1]
    table.dealer = rng_below(rng, table.n_players)


cdef void _game_table(const DealsC* deals, int64_t number, TableC* table) noexcept nogil:
    """Draw the table of the game that a round belongs to."""
    cdef RngC rng
    rng_seed(&rng, FOR_GAME, deals.seed, <uint64_t>(number | (ROUNDS_APART - 1)))     # no round has this number
    _draw_table(deals, table, &rng)


cdef int deals_n_rounds(const DealsC* deals, int64_t number) noexcept nogil:
    """Return the number of rounds from this one to the end of its game; 0 or less if the game has no such round."""
    cdef TableC table
    if not deals.is_games:
        return 1
    _game_table(deals, number, &table)
    return _n_rounds(table.n_players, table.n_cards) - <int>(number & (ROUNDS_APART - 1))


cdef void deals_start(
    const DealsC* deals, int64_t number, const uint16_t* totals, StateC* state, RngC* rng
) noexcept nogil:
    """Deal a round; rng becomes its stream. `totals` are the points before the round, by seat."""
    cdef TableC table
    cdef int index, n_cards, trump
    rng_seed(rng, FOR_GAME if deals.is_games else FOR_ROUND, deals.seed, <uint64_t>number)
    if not deals.is_games:
        _draw_table(deals, &table, rng)
        trump = rng_below(rng, 5)                            # 4 is NO_TRUMP
        state_deal(state, table.n_players, table.n_cards, table.dealer, trump, rng)
        return
    _game_table(deals, number, &table)
    index = <int>(number & (ROUNDS_APART - 1))
    n_cards = _hand_size(table.n_players, table.n_cards, index)
    state_deal(state, table.n_players, n_cards, (table.dealer + index) % table.n_players, index % 5, rng)
    memcpy(state.totals, totals, sizeof(state.totals))
    state.game_round = <unsigned char>index
    state.start_cards = <unsigned char>table.n_cards


def games_for(rounds, *, seed, deal):
    """Return the number of games from game 0 that hold at least `rounds` rounds, and their number of rounds.

    Raises:
        InvalidConfig: if the deal is of independent rounds, or `rounds` exceeds 10^9.
    """
    cdef DealsC deals
    cdef int64_t wanted = rounds
    if wanted > 1_000_000_000:
        raise InvalidConfig(f"expected at most 1000000000 rounds, got {wanted}")
    cdef int64_t n_games = 0
    cdef int64_t n_rounds = 0
    if deal.unit != "game":
        raise InvalidConfig(f"expected a deal of whole games, got unit {deal.unit!r}")
    deals_set(&deals, seed, deal)
    with nogil:
        while n_rounds < wanted:
            n_rounds += deals_n_rounds(&deals, n_games * ROUNDS_APART)
            n_games += 1
    return n_games, n_rounds
