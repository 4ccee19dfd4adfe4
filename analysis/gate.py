"""Whether a candidate is fast enough to let pass, in continuous integration say."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.comparison import NO_NUMBER, NOT_VALID, Comparison, Point
from analysis.selection import text_of
from analysis.sentences import label
from analysis.statistics import SLOWER, TOO_FEW, verdict


def objections(comparison: Comparison, limit: float) -> list[str]:
    """Why the candidate must not pass, a line per point; empty when nothing speaks against it.

    It is slower by at least `limit` (0.05: 5 %) and the interval excludes that it is not; or it
    has no number where the baseline has one; or its times allow no verdict. Where the baseline
    has no number there is nothing to be slower than; if that is everywhere, that is an objection.
    """
    found = [
        f"{_place(point)}{why}"
        for point in comparison.points
        for why in _objections(point, limit, label(comparison.candidate))
    ]
    judged = any(point.baseline.has_number for point in comparison.points)
    return found if judged else ["the baseline has no number at any point"]


def _objections(point: Point, limit: float, candidate: str) -> Iterator[str]:
    ratio = point.ratio
    if point.verdict == NO_NUMBER:
        if point.baseline.has_number:
            ends = ", ".join(f"{status} {n}" for status, n in point.candidate.statuses.items())
            yield f"{candidate} has no number ({ends or 'not run'})"
    elif point.verdict == TOO_FEW:
        yield f"too few rounds for a verdict ({ratio.rounds} in common)"
    elif point.verdict == NOT_VALID:
        yield "ranks shared GPUs, so the times allow no verdict"
    elif ratio.value and ratio.interval and verdict(ratio.value, ratio.interval, limit) == SLOWER:
        low, high = 1 / ratio.interval.high - 1, 1 / ratio.interval.low - 1
        yield (
            f"{candidate} is slower by {1 / ratio.value - 1:.1%} "
            f"(95 % interval {low:.1%} to {high:.1%})"
        )


def _place(point: Point) -> str:
    words = " ".join(f"{key}={text_of(value)}" for key, value in point.axes.items())
    return f"{words}: " if words else ""
