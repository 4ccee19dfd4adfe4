"""Several points' ratios as one: the mean of their means, and how far the rounds let it be off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.correlation import order
from analysis.statistics import FEWEST, Logs, Ratio, Sample, ratio_of, too_few

__all__ = ["Counted", "counted", "pooled"]


@dataclass(frozen=True)
class Counted:
    """What an overall ratio is made of."""

    points: int
    """Points that count."""
    fewest_rounds: int
    """Common rounds of the point that has the fewest, of those that count."""
    most_rounds: int
    left_out: int
    """Points that have rounds in common, but fewer than `FEWEST`, beside others that have more."""


def counted(points: Sequence[Logs]) -> Counted:
    """Which points `pooled` counts, and how many rounds they have."""
    kept = _kept(points)
    rounds = [len(logs) for logs in kept] or [0]
    some = sum(bool(logs) for logs in points)
    return Counted(len(kept), min(rounds), max(rounds), some - len(kept))


def pooled(points: Sequence[Logs], smallest: float) -> Ratio:
    """The geometric mean of the points' ratios, each over all of its own rounds.

    Every point weighs the same, however many rounds it has: points may differ in truth, and
    weights by precision would give the ratio of the points that are precise. A point with fewer
    than `FEWEST` rounds, which does not tell how far it may be off, is left out beside others.

    The estimate is M = (1/P) sum over points p of the mean over its n(p) rounds of x(p, r). It
    is a sum over rounds, and rounds are independent (points within a round need not be: what a
    round does to one point it may do to all). With e(p, r) the deviation from the point's mean,
    u(r) = sum over p of e(p, r) / (P n(p)) and m rounds in all, its variance is estimated as
    c sum of u(r)^2, the variance estimator for clusters (Liang and Zeger, Biometrika 73, 1986).
    c makes it unbiased, and Student's quantile has the degrees of freedom
    (tr W)^2 / tr(W^2), if W, the covariance of u(1), …, u(m), is that of independent points with
    the variances that they show, each its own or all the same, whichever is more cautious: Bell
    and McCaffrey, "Bias Reduction in Standard Errors for Linear Regression with Multi-Stage
    Samples", Survey Methodology 28 (2002).

    Computed as the interval of the mean of m values, one per round, M + u(r) sqrt(c m (m - 1)):
    they have this mean and this variance. Where all points have the same rounds, c = m / (m - 1),
    there are m - 1 degrees of freedom, and the values are the means over the points, round by
    round. Raises ValueError as `analysis.statistics.ratio_of`.
    """
    kept = _kept(points)
    if not kept:
        return too_few(None, 0)
    mean = math.fsum(math.fsum(logs.values()) / len(logs) for logs in kept) / len(kept)
    most = max(map(len, kept))
    if most < FEWEST:
        return too_few(mean, most)
    by_round, freedom = _by_round(kept, mean)
    return ratio_of(by_round, smallest, freedom)


def _kept(points: Sequence[Logs]) -> list[Logs]:
    """The points that count: those with enough rounds; all that have some where none has."""
    enough = [logs for logs in points if len(logs) >= FEWEST]
    return enough or [logs for logs in points if logs]


def _by_round(points: Sequence[Logs], mean: float) -> tuple[Logs, float]:
    """One value per round, whose mean is `mean`, and the degrees of freedom."""
    rounds: list[Sample] = sorted(set().union(*points), key=order)
    present = np.array([[r in logs for r in rounds] for logs in points])
    values = np.array([[logs.get(r, 0.0) for r in rounds] for logs in points])
    sizes = present.sum(axis=1)
    deviations = np.where(present, values - (values.sum(axis=1) / sizes)[:, None], 0.0)
    squares = (deviations**2).sum(axis=1)
    common = np.full(len(points), squares.sum() / (sizes - 1).sum())
    cautious = [_working(present, v) for v in (squares / (sizes - 1), common) if v.any()]
    correction = max((c for c, _ in cautious), default=1.0)
    freedom = min((degrees for _, degrees in cautious), default=len(rounds) - 1.0)
    m = len(rounds)
    u = (deviations / (len(points) * sizes)[:, None]).sum(axis=0)
    spread = u * math.sqrt(correction * m * (m - 1))
    return dict(zip(rounds, (mean + spread).tolist(), strict=True)), freedom


def _working(present: np.ndarray, variances: np.ndarray) -> tuple[float, float]:
    """c and the degrees of freedom for independent points of these variances of one round.

    `present` [points, rounds] says which rounds a point has.
    """
    sizes = present.sum(axis=1)
    worth = variances / (len(variances) * sizes) ** 2
    # Covariance of the u(r): each point gives worth (I - J / n) among its own rounds.
    shares = present * worth[:, None]
    covariance = np.diag(shares.sum(axis=0)) - (shares / sizes[:, None]).T @ present
    trace = float(np.trace(covariance))
    return float(worth @ sizes) / trace, trace**2 / float((covariance**2).sum())
