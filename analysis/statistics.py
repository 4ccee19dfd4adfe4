"""Small, pure statistics of rounds. The sample unit is the round, never the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
SMALLEST = 0.02
"""Smallest relative difference that matters."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in the unit of its values."""

    low: float
    high: float
    level: float
    """Confidence that it attains [0..1]; below 0.95 where there were too few values for more."""


@dataclass(frozen=True)
class Figure:
    """What a configuration's rounds say together."""

    value: float
    interval: Interval
    rounds: int


@dataclass(frozen=True)
class Ratio:
    """A ratio paired by round: the geometric mean over the rounds that both sides have."""

    value: float | None
    """None without a common round."""
    interval: Interval | None
    """None with fewer than `FEWEST` rounds."""
    rounds: int
    verdict: str
    """`faster`, `slower`, `no difference seen` or `too few rounds`."""


def median(values: Sequence[float]) -> float:
    """The middle value; the mean of the two middle ones where their number is even.

    Raises ValueError when there are none, or one is not finite.
    """
    ordered = _sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie, interpolated linearly.

    Position 1 + (n-1) percent/100 among the n sorted values: definition 7 of Hyndman and Fan,
    "Sample quantiles in statistical packages", The American Statistician 50 (1996).

    Raises ValueError when there are no values, one is not finite, or percent is outside 0..100.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"percent={percent} is not within 0..100")
    ordered = _sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = math.ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Confidence interval of the median that assumes nothing about the distribution.

    For n independent values the k-th smallest and the k-th largest enclose the median with
    probability 1 - 2 P(Binomial(n, 1/2) < k). The narrowest pair that attains `confidence` is
    returned: at 95 % that takes 6 values. With fewer it is the whole range, and `level` says
    what that attains: 1 - 2^(1-n). Source: David and Nagaraja, "Order Statistics", 3rd edition
    (2003), section 7.1.

    Raises ValueError when there are no values or one is not finite.
    """
    ordered = _sorted(values)
    n = len(ordered)
    rank, level = 1, 1 - 2.0 ** (1 - n)
    outside = 1  # number of outcomes of n coin tosses with fewer than `rank` heads
    while 2 * (rank + 1) <= n + 1:
        outside += math.comb(n, rank)
        narrower = 1 - 2 * outside / 2**n
        if narrower < confidence:
            break
        rank, level = rank + 1, narrower
    return Interval(ordered[rank - 1], ordered[n - rank], level)


def figure_of_rounds(per_round: Sequence[float]) -> Figure:
    """A configuration's figure: the median over rounds of each round's median, with interval.

    Raises ValueError when there are no rounds or one is not finite.
    """
    return Figure(median(per_round), median_interval(per_round), len(per_round))


def _sorted(values: Sequence[float]) -> list[float]:
    if not values:
        raise ValueError("no values")
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not finite")
    return sorted(values)
