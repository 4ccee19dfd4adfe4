"""Small, pure statistics of rounds: paired ratios, their intervals and verdicts.

What concerns one configuration alone (`median`, `figure_of_rounds`) is in `bench.rounds`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from bench.rounds import (
    CONFIDENCE,
    Figure,
    Interval,
    figure_of_rounds,
    median,
    median_interval,
    ordered,
)

__all__ = [
    "CONFIDENCE",
    "FASTER",
    "FEWEST",
    "NO_DIFFERENCE",
    "SLOWER",
    "SMALLEST",
    "TOO_FEW",
    "Figure",
    "Interval",
    "Ratio",
    "figure_of_rounds",
    "interval_of_mean",
    "median",
    "median_interval",
    "paired_logs",
    "percentile",
    "ratio_of",
    "rounds_needed",
    "verdict",
]

SMALLEST = 0.02
"""Smallest relative difference that matters."""
FEWEST = 3
"""Rounds below which there is no interval and no verdict."""
RESAMPLES = 9999
"""Of the bootstrap; its tails are then good to a few hundredths of the interval's width."""

FASTER, SLOWER = "faster", "slower"
NO_DIFFERENCE = "no difference seen"
TOO_FEW = "too few rounds"


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
    needed: int | None
    """Rounds that would make the interval as narrow as ± the smallest difference that matters,
    if they scatter as these do; None with fewer than `FEWEST`."""


def paired_logs(baseline: Mapping[int, float], candidate: Mapping[int, float]) -> dict[int, float]:
    """ln(candidate / baseline) of every round that both have.

    What drifts from round to round hits both sides alike and cancels here.
    Raises ValueError when a value is not above 0.
    """
    common = sorted(baseline.keys() & candidate.keys())
    return {round_: math.log(candidate[round_] / baseline[round_]) for round_ in common}


def ratio_of(logs: Sequence[float], smallest: float = SMALLEST) -> Ratio:
    """The ratio whose logarithms, one per round, are `logs`.

    `smallest` is the relative difference that matters. Raises ValueError when it is not above 0
    or a logarithm is not finite.
    """
    if not smallest > 0:
        raise ValueError(f"smallest={smallest} is not above 0")
    n = len(logs)
    if n < FEWEST:
        value = math.exp(math.fsum(logs) / n) if n else None
        return Ratio(value, None, n, TOO_FEW, None)
    value = math.exp(math.fsum(logs) / n)
    inner = interval_of_mean(logs)
    interval = Interval(math.exp(inner.low), math.exp(inner.high), inner.level)
    return Ratio(
        value, interval, n, verdict(value, interval, smallest), rounds_needed(logs, smallest)
    )


def verdict(value: float, interval: Interval, smallest: float = SMALLEST) -> str:
    """What follows from a ratio's interval and the smallest difference that matters.

    `faster` (`slower`): the interval lies above (below) 1, and the ratio is at least
    1 + smallest (at most its inverse). Otherwise `no difference seen`, which does not say that
    there is none: the interval tells what could be hidden.
    """
    if interval.low > 1 and value >= 1 + smallest:
        return FASTER
    if interval.high < 1 and value <= 1 / (1 + smallest):
        return SLOWER
    return NO_DIFFERENCE


def interval_of_mean(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Confidence interval of the mean of a few values, by the bootstrap.

    Expanded percentile bootstrap: the percentiles of the resampled means are taken further out,
    at Phi(-sqrt(n/(n-1)) t), t being Student's quantile with n - 1 degrees of freedom, since a
    resample varies by (n-1)/n too little and n values tell little about their scatter. Source:
    Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69
    (2015), section 4. Resampled means never leave the range of the values, which with 3 of
    them holds the truth in 3 of 4 cases only; so neither side is shorter than Student's, which
    decides up to some 8 values. `benchmarks/coverage.py` shows what both together cover.

    The resamples are the same in every call: equal values give equal intervals.
    Raises ValueError with fewer than 2 values or when one is not finite.
    """
    n = len(ordered(values))
    if n < 2:
        raise ValueError("an interval takes at least 2 values")
    array = np.asarray(values, dtype=float)
    t = float(stdtrit(n - 1, (1 + confidence) / 2))
    reach = t * float(array.std(ddof=1)) / math.sqrt(n)
    tail = float(ndtr(-math.sqrt(n / (n - 1)) * t))
    low, high = np.quantile(_resampling(n) @ array, [tail, 1 - tail])
    mean = math.fsum(values) / n
    return Interval(min(float(low), mean - reach), max(float(high), mean + reach), confidence)


def rounds_needed(logs: Sequence[float], precision: float, confidence: float = CONFIDENCE) -> int:
    """Rounds after which the interval of a ratio is about ± `precision` (0.02: 2 %) wide.

    The smallest n with t s / sqrt(n) <= ln(1 + precision), s being the standard deviation of the
    given logarithms and t Student's quantile with n - 1 degrees of freedom.
    Raises ValueError with fewer than 2 logarithms, or when `precision` is not above 0.
    """
    if len(logs) < 2 or not precision > 0:
        raise ValueError(f"{len(logs)} rounds and precision={precision} say nothing")
    target = math.log1p(precision)
    deviation = float(np.std(logs, ddof=1))

    def reached(n: int) -> bool:
        t = float(stdtrit(n - 1, (1 + confidence) / 2))
        return t * deviation / math.sqrt(n) <= target

    most = FEWEST
    while not reached(most):
        most *= 2
    least = FEWEST
    while least < most:  # the reach shrinks with every round, so halve
        middle = (least + most) // 2
        least, most = (least, middle) if reached(middle) else (middle + 1, most)
    return most


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie, interpolated linearly.

    Position 1 + (n-1) percent/100 among the n sorted values: definition 7 of Hyndman and Fan,
    "Sample quantiles in statistical packages", The American Statistician 50 (1996).

    Raises ValueError when there are no values, one is not finite, or percent is outside 0..100.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"percent={percent} is not within 0..100")
    values = ordered(values)
    position = (len(values) - 1) * percent / 100
    below = math.floor(position)
    above = math.ceil(position)
    return values[below] + (values[above] - values[below]) * (position - below)


@functools.lru_cache(maxsize=64)
def _resampling(n: int) -> np.ndarray:
    """Weights of n values in each resample's mean: `RESAMPLES` x n."""
    counts = np.random.default_rng(n).multinomial(n, [1 / n] * n, size=RESAMPLES)
    return counts / n
