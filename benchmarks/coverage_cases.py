"""Simulated comparisons that break an assumption, or have several points, for `coverage`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from analysis.pooling import pooled
from analysis.statistics import SMALLEST, Interval, Logs, interval_of_mean, ratio_of

NOISE = 0.05
"""Standard deviation of the logarithm of one trial's speed."""
OUTLIERS, LONGER = 0.1, 0.2
"""Share of trials that are disturbed, and the mean of how much longer they take."""
TRUTH = 1.05


@dataclass(frozen=True)
class Tally:
    """What became of many simulated comparisons."""

    holds: float
    """Intervals that hold the truth [%]."""
    plain: float
    """The same if rounds always counted as independent [%]."""
    widened: float
    """Comparisons whose rounds were found not to be independent [%]."""
    side: float
    """Lag-1 correlation of one side's noise, over all comparisons [-1..1]."""
    ratio: float
    """The same of the paired ratios."""


@dataclass(frozen=True)
class Points:
    """Points whose ratios are put together."""

    name: str
    rounds: Sequence[int]
    """Of each point."""
    noise: Sequence[float]
    """Of each point, of its own: standard deviation of a round's logarithm."""
    shared: float
    """The same for what a round does to all points alike."""
    judged: bool = True
    """Whether a target can be met: not where most of the error is a point's whose 3 rounds tell
    little about how far it may be off."""


FEW = [10] * 15 + [3]
POINTS = (
    Points("noise of each point's own", FEW, [NOISE] * 16, 0.0),
    Points("the same, half of it shared by a round", FEW, [NOISE] * 16, NOISE),
    Points("the point of 3 rounds 4 times as noisy", FEW, [NOISE] * 15 + [4 * NOISE], 0.0, False),
    Points("the point of 3 rounds 4 times as quiet", FEW, [NOISE] * 15 + [NOISE / 4], 0.0),
    Points("3 to 10 rounds", [3, 4, 5, 6, 7, 8, 9, 10] * 2, [NOISE] * 16, NOISE),
    Points("two points, 3 and 10 rounds", [3, 10], [NOISE] * 2, 0.0),
)


def alike_sides(correlation: float, rounds: int, comparisons: int) -> Tally:
    """Noise that is correlated in time, so that each side is: lag-1 `correlation` by round.

    Both sides' trials follow one another in a random order within each round, as in a sweep.
    With a correlation of f from trial to trial those of one side are 1, 2 or 3 trials apart in
    1, 2 and 1 of 4 cases: f (1 + f)^2 / 4 by round.
    """
    rng = np.random.default_rng([rounds, round(100 * correlation)])
    by_trial = brentq(lambda f: f * (1 + f) ** 2 / 4 - correlation, 0, 1)
    noise = NOISE * autoregression(rng, by_trial, (comparisons, 2 * rounds))
    in_rounds = noise.reshape(comparisons, rounds, 2)
    first = rng.integers(0, 2, (comparisons, rounds, 1))
    baseline = np.take_along_axis(in_rounds, first, axis=2)[..., 0]
    candidate = np.take_along_axis(in_rounds, 1 - first, axis=2)[..., 0]
    return _tally(math.log(TRUTH) + candidate - baseline, baseline)


def alike_ratios(correlation: float, rounds: int, comparisons: int) -> Tally:
    """Paired ratios whose own lag-1 correlation is `correlation`: pairing does not help."""
    rng = np.random.default_rng([rounds, round(100 * correlation), 1])
    noise = math.sqrt(2) * NOISE * autoregression(rng, correlation, (comparisons, rounds))
    return _tally(math.log(TRUTH) + noise, noise)


def one_sided(rounds: int, comparisons: int) -> tuple[float, float]:
    """Outliers that hit the candidate alone: share of intervals that hold two truths [%].

    The mean logarithm of the ratio, outliers and all; and that of undisturbed trials.
    """
    rng = np.random.default_rng([rounds, 2])
    shape = (comparisons, rounds)
    logs = math.log(TRUTH) + math.sqrt(2) * NOISE * rng.standard_normal(shape)
    logs -= np.where(rng.random(shape) < OUTLIERS, rng.exponential(LONGER, shape), 0)
    found = [_interval(row) for row in logs]
    truths = (math.log(TRUTH) - OUTLIERS * LONGER, math.log(TRUTH))
    every, alone = (_share(_holds(one, truth) for one in found) for truth in truths)
    return every, alone


def overall(case: Points, comparisons: int) -> tuple[float, float, float]:
    """Several points as one: share of intervals that hold the truth [%], and half-widths [%].

    The truth is the mean of the points' own, which differ. The half-widths are medians: as it is,
    and over the rounds alone that all points have.
    """
    rng = np.random.default_rng([len(case.rounds), sum(case.rounds)])
    hits, wide, wide_common = [], [], []
    for _ in range(comparisons):
        truths = rng.normal(0, 0.1, len(case.rounds))
        shared = rng.normal(0, case.shared, max(case.rounds)) if case.shared else None
        points = [
            _point(rng, truth, rounds, noise, shared)
            for truth, rounds, noise in zip(truths, case.rounds, case.noise, strict=True)
        ]
        ratio = pooled(points, SMALLEST)
        common = range(min(case.rounds))
        old = ratio_of([float(np.mean([one[r] for one in points])) for r in common])
        hits.append(_inside(ratio.interval, math.exp(truths.mean())))
        wide.append(_half(ratio.interval))
        wide_common.append(_half(old.interval))
    return _share(hits), float(np.median(wide)), float(np.median(wide_common))


def autoregression(
    rng: np.random.Generator, correlation: float, shape: tuple[int, int]
) -> np.ndarray:
    """Rows of normal noise of variance 1 whose lag-1 correlation is `correlation`."""
    white = rng.standard_normal(shape)
    rows = white.copy()
    for i in range(1, shape[1]):
        rows[:, i] = correlation * rows[:, i - 1] + math.sqrt(1 - correlation**2) * white[:, i]
    return rows


def _point(
    rng: np.random.Generator, truth: float, rounds: int, noise: float, shared: np.ndarray | None
) -> Logs:
    logs = truth + rng.normal(0, noise, rounds) + (0 if shared is None else shared[:rounds])
    return dict(enumerate(logs.tolist()))


def _tally(logs: np.ndarray, side: np.ndarray) -> Tally:
    """Of comparisons whose logarithms are the rows of `logs`, with the truth `TRUTH`."""
    found = [ratio_of(row.tolist()) for row in logs]
    return Tally(
        holds=_share(_inside(one.interval, TRUTH) for one in found),
        plain=_share(_holds(_interval(row), math.log(TRUTH)) for row in logs),
        widened=_share(one.dependent for one in found),
        side=lag_one(side),
        ratio=lag_one(logs - math.log(TRUTH)),
    )


def lag_one(rows: np.ndarray) -> float:
    """Lag-1 correlation within rows whose true mean is 0."""
    return float((rows[:, :-1] * rows[:, 1:]).mean() / (rows**2).mean())


def _interval(logs: np.ndarray) -> Interval:
    return interval_of_mean(logs.tolist())


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def _inside(interval: Interval | None, truth: float) -> bool:
    return interval is not None and _holds(interval, truth)


def _half(interval: Interval | None) -> float:
    return 100 * (interval.high - interval.low) / 2 if interval else math.inf


def _share(of: Iterable[bool]) -> float:
    return 100 * float(np.mean([*of]))
