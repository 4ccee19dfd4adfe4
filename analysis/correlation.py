"""Whether neighbouring rounds are alike: the lag-1 correlation of paired ratios, and its test."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Sample = Any
"""What is paired: a round (an integer), or a tuple that ends with one, such as host and round."""

FEWEST_PAIRS = 10
"""Samples below which a correlation is not estimated: it would be nearly all chance."""
LEVEL = 0.05
"""Of the test: how often it sees a correlation where there is none."""
PERMUTATIONS = 1999
QUIET = 1e-9
"""Standard deviation of logarithms below which there is nothing but rounding."""


@dataclass(frozen=True)
class Correlation:
    """How alike the ratios of neighbouring rounds are."""

    value: float
    """Lag-1 correlation [-1..1]."""
    p_value: float
    """Probability of this value or a larger one, were the rounds in random order [0..1]."""
    neighbours: int
    """Pairs of neighbouring rounds that it is estimated from."""

    @property
    def significant(self) -> bool:
        """Whether chance alone would leave it this large in at most `LEVEL` of cases."""
        return self.p_value <= LEVEL


def correlation_of(logs: Mapping[Sample, float]) -> Correlation | None:
    """Lag-1 correlation of values by round.

    With d the deviations from the mean: the sum of d[r] d[r+1] over the sum of d[r]^2, as in Box
    and Jenkins, "Time Series Analysis" (1976). Only rounds whose numbers follow one another, on
    one host, are neighbours; where some are missing, the first sum is taken for as many as there
    would be. The p-value is that of the permutation test of Wald and Wolfowitz, "An Exact Test
    for Randomness in the Non-Parametric Case Based on Serial Correlation", Annals of Mathematical
    Statistics 14 (1943), against positive correlation, here without closing the circle: the share
    of `PERMUTATIONS` random orders, the same in every call, whose sum is as large.

    None with fewer than `FEWEST_PAIRS` values, with fewer neighbours than half as many, or where
    nothing scatters.
    """
    samples = sorted(logs, key=order)
    n, index = len(samples), {order(sample): i for i, sample in enumerate(samples)}
    places = [(i, index.get((host, round_ + 1))) for (host, round_), i in index.items()]
    first = [i for i, following in places if following is not None]
    second = [following for _, following in places if following is not None]
    if n < FEWEST_PAIRS or 2 * len(first) < n:
        return None
    values = np.array([logs[sample] for sample in samples])
    values -= values.mean()
    squares = float(values @ values)
    if math.sqrt(squares / n) < QUIET:
        return None
    product = float(values[first] @ values[second])
    most = math.cos(math.pi / (n + 1))  # the largest of any n values that follow one another
    value = product * (n - 1) / len(first) / squares
    shuffled = values[_orders(n)]
    chance = np.einsum("ij,ij->i", shuffled[:, first], shuffled[:, second])
    at_least = int((chance >= product - 1e-12 * squares).sum())
    return Correlation(
        max(-most, min(most, value)), (1 + at_least) / (1 + PERMUTATIONS), len(first)
    )


def effective(n: int, correlation: float) -> float:
    """How many independent values tell as much about the mean as `n` of this lag-1 correlation.

    n (1 - r) / (1 + r), for values whose correlation falls by r with every round (an
    autoregression of first order): Bayley and Hammersley, "The 'Effective' Number of Independent
    Observations in an Autocorrelated Time Series", Supplement to the Journal of the Royal
    Statistical Society 8 (1946), for large n. A negative correlation counts as none.
    """
    r = max(0.0, correlation)
    return n * (1 - r) / (1 + r)


def order(sample: Sample) -> tuple[tuple[str, ...], int]:
    """Host and round: rounds of one host stand together, in their order."""
    if isinstance(sample, tuple):
        *host, round_ = sample
        return tuple(map(str, host)), int(round_)
    return (), int(sample)


@functools.lru_cache(maxsize=64)
def _orders(n: int) -> np.ndarray:
    """`PERMUTATIONS` random orders of n values."""
    rng = np.random.default_rng(n)
    return rng.permuted(np.tile(np.arange(n), (PERMUTATIONS, 1)), axis=1)
