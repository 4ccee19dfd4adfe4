"""Total = effect of one axis × effect of the other, by way of a configuration in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.comparison import Decomposition, Effect, Selector
from analysis.statistics import paired_logs, ratio_of

Rates = Mapping[int, float]
"""Tokens/s by round."""
Logs = Mapping[int, float]
"""Logarithm of a ratio by round."""


@dataclass(frozen=True)
class Route:
    """From baseline to candidate in two steps, each of which changes one axis."""

    baseline: Selector
    candidate: Selector
    first: str
    """The axis that changes first, `environment` say."""
    second: str

    @property
    def between(self) -> Selector:
        """The configuration after the first step."""
        return {**self.baseline, self.first: self.candidate[self.first]}


def routes(baseline: Selector, candidate: Selector) -> list[Route]:
    """Both ways to go, that over the candidate's environment first; none unless two axes differ.

    On the first way the aggregation changes on the new version: all_gather on an old torch
    has no number where its backward raises.
    """
    if baseline.keys() != candidate.keys():
        return []
    differing = [key for key in baseline if baseline[key] != candidate[key]]
    if len(differing) != 2:
        return []
    differing.sort(key=lambda key: key != "environment")
    return [Route(baseline, candidate, *order) for order in (differing, differing[::-1])]


def steps(baseline: Rates, between: Rates, candidate: Rates) -> tuple[Logs, Logs]:
    """Both steps of a route, over the rounds that all three have: their product is the total."""
    common = baseline.keys() & between.keys() & candidate.keys()
    first, second = paired_logs(baseline, between), paired_logs(between, candidate)
    return {r: first[r] for r in sorted(common)}, {r: second[r] for r in sorted(common)}


def pooled(points: Sequence[Logs]) -> list[float]:
    """Mean logarithm over the points, for every round that all of them have.

    The round stays the sample unit: what a round does to one point it may do to all.
    """
    if not points:
        return []
    common = set.intersection(*(set(logs) for logs in points))
    return [sum(logs[r] for logs in points) / len(points) for r in sorted(common)]


def decomposition(
    route: Route, first: Sequence[float], second: Sequence[float], smallest: float
) -> Decomposition:
    """The effects of a route whose steps have these logarithms, round by round."""
    total = [one + other for one, other in zip(first, second, strict=True)]
    return Decomposition(
        total=ratio_of(total, smallest),
        first=_effect(route.baseline, route.between, route.first, route.second, first, smallest),
        second=_effect(route.between, route.candidate, route.second, route.first, second, smallest),
    )


def _effect(
    before: Selector,
    after: Selector,
    axis: str,
    held: str,
    logs: Sequence[float],
    smallest: float,
) -> Effect:
    ratio = ratio_of(logs, smallest)
    return Effect(axis, before[axis], after[axis], {held: after[held]}, ratio)
