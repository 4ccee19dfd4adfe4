"""How far predictions err: recorded and published step times over predicted ones.

An interval that covers these errors is what a prediction is worth. Published results with few
tokens a GPU are a class of their own: seconds that no rate explains dominate them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

from analysis.prediction.published import predicted_memory_bytes, predicted_step_s, series
from bench.trial import ModelSpec

if TYPE_CHECKING:
    from analysis.prediction.fit import Fit, Point

SHORT_TOKENS = 10_000
"""Tokens of one GPU in a step up to which a prediction counts as one of short sequences: published
results stop at 8,192 on the one side and begin at 16,384 on the other."""
BEYOND = 2.0
"""A sequence so much longer than the longest that was recorded is no interpolation any more."""


@dataclass(frozen=True)
class Range:
    """True step times over predicted ones, of some results."""

    least: float
    most: float
    source: str
    """Which results they are, for people."""

    @property
    def low(self) -> float:
        """Factor for the lower end of an interval, at most 1."""
        return min(1.0, self.least)

    @property
    def high(self) -> float:
        """Factor for the upper end of an interval, at least 1."""
        return max(1.0, self.most)

    @property
    def apart(self) -> float:
        """Ratio of two predictions that may be due to errors alone."""
        return self.most / self.least

    def joined(self, other: Range) -> Range:
        """The range that covers both."""
        least, most = min(self.least, other.least), max(self.most, other.most)
        return Range(least, most, f"{self.source} and {other.source}")


@dataclass(frozen=True)
class Errors:
    """What is known of the errors of a prediction, by how many tokens a GPU has in a step."""

    short: Range
    long: Range
    memory_missing: float = 0.0
    """Largest excess of a published peak of a GPU over the predicted one [bytes]."""

    def of(self, tokens: float) -> Range:
        """For a step with `tokens` on each GPU."""
        return self.short if tokens <= SHORT_TOKENS else self.long


class Asked(Protocol):
    """What a prediction is asked for, as `analysis.prediction.splits.Setting` has it."""

    @property
    def gpus(self) -> int: ...

    @property
    def model(self) -> ModelSpec: ...

    @property
    def seq_len(self) -> int: ...


@cache
def published_errors() -> Errors:
    """Of the results in benchmarks/published.yaml that have a step time or a peak."""
    ratios: dict[bool, list[float]] = {True: [], False: []}
    missing = [0.0]
    for one in series():
        for seen in one.observations:
            if seen.step_s is not None:
                tokens = seen.tokens_per_step / one.entry["gpus"]
                ratio = seen.step_s / predicted_step_s(one, seen)
                ratios[tokens <= SHORT_TOKENS].append(ratio)
            if seen.peak_memory_bytes is not None:
                missing.append(seen.peak_memory_bytes - predicted_memory_bytes(one, seen))
    short, long = (
        _range(ratios[kind], f"published results with {words} {SHORT_TOKENS:,} tokens a GPU")
        for kind, words in ((True, "up to"), (False, "more than"))
    )
    return Errors(short, long, max(missing))


def fitted_errors(made: Fit, points: Sequence[Point], asked: Asked) -> Errors:
    """Of a fit: what it leaves over, and what it predicts of recorded trials that it never saw.

    Where it is asked for another model, other ranks or a sequence much longer than was recorded,
    published results count as well.
    """
    from analysis.prediction.checks import every_way  # half a second of imports, only for a fit

    left_out = [one for group in every_way(points, made.cluster).values() for one in group]
    known = [*made.residuals, *left_out]
    own = _range([1 / (1 + one.relative) for one in known], "recorded trials, left out of the fit")
    published = published_errors()
    missing = published.memory_missing
    longest = max(point.seq_len for point in points)
    recorded = {(point.world, point.model) for point in points}
    if (asked.gpus, asked.model) in recorded and asked.seq_len <= BEYOND * longest:
        return Errors(own, own, missing)
    return Errors(own.joined(published.short), own.joined(published.long), missing)


def _range(ratios: Iterable[float], source: str) -> Range:
    found = list(ratios)
    return Range(min(found), max(found), f"{len(found)} {source}")
