"""Total = effect of one axis × effect of the other, by way of a configuration in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.comparison import Decomposition, Effect, Selector
from analysis.pooling import counted, pooled
from analysis.statistics import Logs, Ratio, Sample, paired_logs

Rates = Mapping[Sample, float]
"""Tokens/s by round."""


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
    first, second = paired_logs(baseline, between), paired_logs(between, candidate)
    common = [sample for sample in first if sample in second]
    return {s: first[s] for s in common}, {s: second[s] for s in common}


def decomposition(
    route: Route, points: Sequence[tuple[Logs, Logs]], smallest: float
) -> Decomposition | None:
    """The effects of a route over `points`, given the logarithms of both steps by round.

    Values multiply exactly: each is a mean over the same points and rounds. None where the
    rounds are too few to tell either effect (`analysis.statistics.Ratio.tells`).
    """
    first, second = [one for one, _ in points], [other for _, other in points]
    total = [{s: one[s] + other[s] for s in one} for one, other in points]
    found = Decomposition(
        total=pooled(total, smallest),
        first=_effect(
            route.baseline, route.between, route.first, route.second, pooled(first, smallest)
        ),
        second=_effect(
            route.between, route.candidate, route.second, route.first, pooled(second, smallest)
        ),
        counted=counted(total),
    )
    return found if found.first.ratio.tells or found.second.ratio.tells else None


def _effect(before: Selector, after: Selector, axis: str, held: str, ratio: Ratio) -> Effect:
    return Effect(axis, before[axis], after[axis], {held: after[held]}, ratio)
