# SPDX-License-Identifier: Apache-2.0
"""Random streams: the generator bit for bit against a slow twin, and the shapes of what is drawn from it."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import beta, chisquare, gamma, kstest

from mcts_ext._testing import PURPOSES, dirichlet_shares, random_stream

P_VALUE = 1e-4
WORD = 2**64 - 1


def splitmix64(x: int) -> Iterator[int]:
    """Steele, Lea and Flood 2014, as published at https://prng.di.unimi.it/splitmix64.c."""
    while True:
        x = (x + 0x9E3779B97F4A7C15) & WORD
        z = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
        yield z ^ (z >> 31)


def xoshiro256pp(seed: int, stream: int) -> Iterator[int]:
    """Blackman and Vigna 2019, as published at https://prng.di.unimi.it/xoshiro256plusplus.c."""

    def rotl(x: int, k: int) -> int:
        return ((x << k) | (x >> (64 - k))) & WORD

    words = splitmix64(next(splitmix64(seed)) ^ (stream * 0xD1342543DE82EF95 & WORD))
    s = [next(words) for _ in range(4)]
    while True:
        yield (rotl((s[0] + s[3]) & WORD, 23) + s[0]) & WORD
        t = (s[1] << 17) & WORD
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotl(s[3], 45)


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 0), (0, 1), (12345, 67), (WORD, WORD), (2**63, 10**9)])
def test_the_generator_is_xoshiro256pp(seed: int, stream: int) -> None:
    words = xoshiro256pp(seed, stream)
    assert random_stream(seed, stream, 500) == [(next(words) >> 11) / 2**53 for _ in range(500)]


def test_published_splitmix_values() -> None:
    """The twin itself: first outputs for seed 1234567, as other implementations give them."""
    words = splitmix64(1234567)
    assert [next(words) for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("n", [2, 3, 5, 13, 47, 52, 1000])
def test_below_is_uniform(n: int) -> None:
    drawn = Counter(random_stream(7, n, 200 * n, below=n))
    assert set(drawn) <= set(range(n))
    assert chisquare([drawn[i] for i in range(n)]).pvalue > P_VALUE


def test_below_one_is_zero() -> None:
    assert random_stream(1, 1, 20, below=1) == [0] * 20


def test_below_is_exact_where_the_modulus_would_show() -> None:
    """Below 3 * 2**30 a plain 32-bit modulus would favour the first third two to one."""
    n = 3 * 2**30
    thirds = Counter(x // 2**30 for x in random_stream(3, 0, 30_000, below=n))
    assert set(thirds) == {0, 1, 2}
    assert chisquare([thirds[i] for i in range(3)]).pvalue > P_VALUE


@pytest.mark.parametrize("alpha", [0.001, 0.03, 0.3, 0.999, 1.0, 2.5, 40.0])
def test_gamma_has_its_distribution(alpha: float) -> None:
    drawn = np.array(random_stream(5, 0, 20_000, log_gamma=alpha))
    assert np.isfinite(drawn).all()
    assert kstest(drawn, lambda x: log_gamma_cdf(x, alpha)).pvalue > P_VALUE


def log_gamma_cdf(x: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """P(log G <= x); far below 0, where e^x has no room, by the series P(G <= g) = g^alpha / Gamma(alpha + 1)."""
    return np.where(x < -30, np.exp(alpha * x - gammaln(alpha + 1)), gamma(alpha).cdf(np.exp(x)))


@pytest.mark.parametrize("k", [2, 5, 14])
@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.1, 0.3, 1.0, 10.0, 1000.0])
def test_dirichlet_has_its_moments_and_its_extremes(alpha: float, k: int) -> None:
    """Means 1 / k and variances (k - 1) / (k^2 (k alpha + 1)), within 5 standard errors; how often one takes all."""
    n = 20_000
    shares = np.array(dirichlet_shares(3, n, alpha=alpha, k=k), np.float64)
    assert (shares >= 0).all()
    assert np.abs(shares.sum(axis=1) - 1).max() < 1e-5
    variance = (k - 1) / (k * k * (k * alpha + 1))
    assert np.abs(shares.mean(axis=0) - 1 / k).max() < 5 * (variance / n) ** 0.5
    squares = (shares - 1 / k) ** 2
    assert np.abs(squares.mean(axis=0) - variance).max() < 5 * (squares.std(axis=0).max() / n**0.5)
    # A share of more than 0.99 is one of k disjoint events of the marginal Beta(alpha, (k - 1) alpha).
    expected = k * beta(alpha, (k - 1) * alpha).sf(0.99)
    found = (shares > 0.99).any(axis=1).mean()
    assert abs(found - expected) < 5 * (expected * (1 - expected) / n) ** 0.5 + 1e-3


def test_uniform_fills_the_unit_interval() -> None:
    drawn = random_stream(5, 1, 50_000)
    assert 0.0 <= min(drawn) < max(drawn) < 1.0
    assert kstest(drawn, "uniform").pvalue > P_VALUE


def test_streams_and_seeds_share_nothing() -> None:
    """Neighbouring seeds and streams: no word twice among all, no correlation between any two."""
    streams = [random_stream(seed, stream, 4000) for seed in range(6) for stream in range(6)]
    assert len({x for drawn in streams for x in drawn}) == 36 * 4000
    correlations = np.corrcoef(streams)[np.triu_indices(36, k=1)]
    assert np.abs(correlations).max() < 5 / 4000**0.5


def test_purposes_share_nothing() -> None:
    """Equal seeds, streams 0 to 3, whatever they are for: no word twice, no correlation, other first draws."""
    streams = [random_stream(1, stream, 4000, purpose=name) for name in PURPOSES for stream in range(4)]
    n = len(streams)
    assert len({x for drawn in streams for x in drawn}) == n * 4000
    assert np.abs(np.corrcoef(streams)[np.triu_indices(n, k=1)]).max() < 5 / 4000**0.5
    for seed in range(100):
        assert len({random_stream(seed, 0, 1, purpose=name)[0] for name in PURPOSES}) == len(PURPOSES)


def test_the_first_draws_of_many_streams_are_uniform() -> None:
    """Every round begins with these: the first of stream 0, 1, 2, ..."""
    for below in (2, 5, 52):
        drawn = Counter(random_stream(1, stream, 1, below=below)[0] for stream in range(10_000))
        assert chisquare([drawn[i] for i in range(below)]).pvalue > P_VALUE
