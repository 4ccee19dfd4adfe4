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

from analysis.correlation import Correlation, Sample, correlation_of, effective, order
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
    "WIDE",
    "Figure",
    "Interval",
    "Logs",
    "Ratio",
    "Sample",
    "figure_of_rounds",
    "interval_of_mean",
    "median",
    "median_interval",
    "paired_logs",
    "paired_means",
    "percentile",
    "ratio_of",
    "rounds_for",
    "rounds_needed",
    "too_few",
    "verdict",
]

SMALLEST = 0.02
"""Smallest relative difference that matters."""
FEWEST = 3
"""Rounds below which there is no interval and no verdict."""
WIDE = 1.5
"""Factor by which a ratio may differ from 1 either way, as far as its rounds tell, before they
are too few to show it as a finding: drawn in a heat map, or split into effects."""
RESAMPLES = 9999
"""Of the bootstrap; its tails are then good to a few hundredths of the interval's width."""

Logs = Mapping[Sample, float]
"""Logarithm of a ratio by round, or by host and round."""

FASTER, SLOWER = "faster", "slower"
NO_DIFFERENCE = "no difference seen"
TOO_FEW = "too few rounds"


@dataclass(frozen=True)
class Ratio:
    """A ratio paired by round: the geometric mean over the rounds that both sides have."""

    value: float | None
    """None without a common round."""
    interval: Interval | None
    """None with fewer than `FEWEST` rounds. Wider where the rounds are `dependent`."""
    rounds: int
    verdict: str
    """`faster`, `slower`, `no difference seen` or `too few rounds`."""
    needed: int | None
    """Rounds that would make the interval as narrow as ± the smallest difference that matters,
    if they scatter as these do; None with fewer than `FEWEST`."""
    deviation: float | None = None
    """Standard deviation of one round's logarithm; None with fewer than `FEWEST`."""
    correlation: Correlation | None = None
    """Of neighbouring rounds; None with fewer than 10, or where nothing scatters."""
    dependent: bool = False
    """Whether that correlation is positive and significant."""
    effective: float | None = None
    """Independent rounds that would tell as much: fewer than `rounds` where they are
    `dependent`; None with fewer than `FEWEST`."""

    @property
    def hidden(self) -> float | None:
        """Largest factor, either way, that the interval does not rule out; None without one."""
        return max(self.interval.high, 1 / self.interval.low) if self.interval else None

    @property
    def tells(self) -> bool:
        """Whether the rounds are enough to show the ratio as a finding.

        They show a difference, or rule out those of more than the factor `WIDE`.
        """
        return self.verdict in (FASTER, SLOWER) or (self.hidden or math.inf) <= WIDE


def paired_logs(baseline: Mapping[Sample, float], candidate: Mapping[Sample, float]) -> Logs:
    """ln(candidate / baseline) of every round (or host and round) that both have.

    What drifts from round to round hits both sides alike and cancels here.
    Raises ValueError when a value is not above 0.
    """
    common = sorted((sample for sample in baseline if sample in candidate), key=order)
    return {sample: math.log(candidate[sample] / baseline[sample]) for sample in common}


def paired_means(
    baseline: Mapping[Sample, float], candidate: Mapping[Sample, float]
) -> tuple[float, float] | None:
    """Geometric mean of each side over the rounds that both have; None where there are none.

    The paired ratio is the second over the first. Raises ValueError when a value is not above 0.
    """
    common = [sample for sample in baseline if sample in candidate]
    if not common:
        return None
    one, other = (
        math.exp(math.fsum(math.log(side[sample]) for sample in common) / len(common))
        for side in (baseline, candidate)
    )
    return one, other


def ratio_of(
    logs: Logs | Sequence[float], smallest: float = SMALLEST, freedom: float | None = None
) -> Ratio:
    """The ratio whose logarithms, one per round, are `logs`; a sequence is of rounds 0, 1, …

    `smallest` is the relative difference that matters. `freedom` is `interval_of_mean`'s. From 10
    rounds on the correlation of neighbouring rounds is estimated. Where it is positive and
    significant the interval is widened about the mean by sqrt(n / n'), n' being the effective
    number of rounds (`analysis.correlation.effective`); otherwise rounds count as independent.
    Raises ValueError when `smallest` is not above 0 or a logarithm is not finite.
    """
    if not smallest > 0:
        raise ValueError(f"smallest={smallest} is not above 0")
    by_round = logs if isinstance(logs, Mapping) else dict(enumerate(logs))
    values, n = list(by_round.values()), len(by_round)
    if n < FEWEST:
        return too_few(math.fsum(values) / n if n else None, n)
    mean = math.fsum(values) / n
    inner = interval_of_mean(values, freedom=freedom)
    found = correlation_of(by_round)
    dependent = found is not None and found.significant
    counts = effective(n, found.value) if found is not None and dependent else float(n)
    wider = math.sqrt(n / counts)
    low, high = (math.exp(mean + wider * (end - mean)) for end in (inner.low, inner.high))
    interval, deviation = Interval(low, high, inner.level), float(np.std(values, ddof=1))
    value = math.exp(mean)
    return Ratio(
        value,
        interval,
        n,
        verdict(value, interval, smallest),
        _rounds(deviation, smallest, n / counts),
        deviation,
        found,
        dependent,
        counts,
    )


def too_few(mean: float | None, rounds: int) -> Ratio:
    """A ratio of too few rounds for a verdict; `mean` is its logarithm, None without a round."""
    return Ratio(None if mean is None else math.exp(mean), None, rounds, TOO_FEW, None)


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


def interval_of_mean(
    values: Sequence[float], confidence: float = CONFIDENCE, freedom: float | None = None
) -> Interval:
    """Confidence interval of the mean of a few values, by the bootstrap.

    Expanded percentile bootstrap: the percentiles of the resampled means are taken further out,
    at Phi(-sqrt(n/(n-1)) t), t being Student's quantile with n - 1 degrees of freedom (or
    `freedom`, where the values are not of equal worth), since a
    resample varies by (n-1)/n too little and n values tell little about their scatter. Source:
    Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69
    (2015), section 4. Resampled means never leave the range of the values, which with 3 of
    them holds the truth in 3 of 4 cases only; so neither side is shorter than Student's, which
    decides up to some 8 values. `benchmarks/coverage.py` shows what both together cover. The
    values count as independent.

    The resamples are the same in every call: equal values give equal intervals.
    Raises ValueError with fewer than 2 values or when one is not finite.
    """
    n = len(ordered(values))
    if n < 2:
        raise ValueError("an interval takes at least 2 values")
    array = np.asarray(values, dtype=float)
    t = float(stdtrit(n - 1 if freedom is None else freedom, (1 + confidence) / 2))
    reach = t * float(array.std(ddof=1)) / math.sqrt(n)
    tail = float(ndtr(-math.sqrt(n / (n - 1)) * t))
    low, high = np.quantile(_resampling(n) @ array, [tail, 1 - tail])
    mean = math.fsum(values) / n
    return Interval(min(float(low), mean - reach), max(float(high), mean + reach), confidence)


def rounds_needed(logs: Sequence[float], precision: float) -> int:
    """Rounds after which the interval of a ratio is about ± `precision` (0.02: 2 %) wide.

    The smallest n with t s / sqrt(n) <= ln(1 + precision), s being the standard deviation of the
    given logarithms and t Student's quantile with n - 1 degrees of freedom.
    Raises ValueError with fewer than 2 logarithms, or when `precision` is not above 0.
    """
    if len(logs) < 2 or not precision > 0:
        raise ValueError(f"{len(logs)} rounds and precision={precision} say nothing")
    return _rounds(float(np.std(logs, ddof=1)), precision)


def rounds_for(ratio: Ratio, precision: float) -> int | None:
    """The same for a ratio, whose rounds may be dependent; None where they are too few to say."""
    if ratio.deviation is None or not ratio.effective:
        return None
    return _rounds(ratio.deviation, precision, ratio.rounds / ratio.effective)


def _rounds(deviation: float, precision: float, worth: float = 1.0) -> int:
    """`rounds_needed`, where it takes `worth` rounds to tell as much as an independent one."""
    target = math.log1p(precision)

    def reached(n: int) -> bool:
        t = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
        return t * deviation * math.sqrt(worth / n) <= target

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
