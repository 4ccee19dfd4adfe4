"""From samples to a configuration's figure: a step, a round, an interval over the rounds.

The sample unit is the round, never the step. Shared by the controller, which adds rounds until
a figure is precise, and the analysis, which shows it. Imports on every interpreter that we
measure: Python 3.9 or later, standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import List, Optional

CONFIDENCE = 0.95


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

    @property
    def half_width(self) -> float:
        """The interval's larger side over the value; infinite where it falls short of 95 %."""
        if self.interval.level < CONFIDENCE:
            return math.inf
        return max(self.interval.high - self.value, self.value - self.interval.low) / self.value


def share(text: str) -> float:
    """A relative difference as people write it: `2%`, `2 %` or `0.02`.

    Raises ValueError when it is no number, or not above 0 and below 1 (100 %).
    """
    number = text.strip()
    value = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    if not 0 < value < 1:
        raise ValueError(f"{text} is not above 0 % and below 100 %")
    return value


def slowest(per_rank: Sequence[Sequence[float]]) -> Optional[float]:
    """Median over steps of the maximum over ranks [s]; None where nothing was timed.

    ValueError when ranks have different numbers of steps.
    """
    if len(set(map(len, per_rank))) > 1:
        raise ValueError("ranks have different numbers of steps")
    per_step = list(map(max, zip(*per_rank)))
    return median(per_step) if per_step else None


def median(values: Sequence[float]) -> float:
    """The middle value; the mean of the two middle ones where their number is even.

    Raises ValueError when there are none, or one is not finite.
    """
    values = ordered(values)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Confidence interval of the median that assumes nothing about the distribution.

    For n independent values the k-th smallest and the k-th largest enclose the median with
    probability 1 - 2 P(Binomial(n, 1/2) < k). The narrowest pair that attains `confidence` is
    returned: at 95 % that takes 6 values. With fewer it is the whole range, and `level` says
    what that attains: 1 - 2^(1-n). Source: David and Nagaraja, "Order Statistics", 3rd edition
    (2003), section 7.1.

    Raises ValueError when there are no values or one is not finite.
    """
    values = ordered(values)
    n = len(values)
    rank, level = 1, 1 - 2.0 ** (1 - n)
    outside = 1  # number of outcomes of n coin tosses with fewer than `rank` heads
    while 2 * (rank + 1) <= n + 1:
        outside += math.comb(n, rank)
        narrower = 1 - 2 * outside / 2**n
        if narrower < confidence:
            break
        rank, level = rank + 1, narrower
    return Interval(values[rank - 1], values[n - rank], level)


def figure_of_rounds(per_round: Sequence[float]) -> Figure:
    """A configuration's figure: the median over rounds of each round's median, with interval.

    Raises ValueError when there are no rounds or one is not finite.
    """
    return Figure(median(per_round), median_interval(per_round), len(per_round))


def ordered(values: Sequence[float]) -> List[float]:
    """The values, the smallest first; ValueError when there are none or one is not finite."""
    if not values:
        raise ValueError("no values")
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not finite")
    return sorted(values)
