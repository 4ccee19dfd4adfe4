"""Which results of two sides make a pair: those of one code, one machine, one set of versions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.identities import (
    RESULT,
    disagreement,
    hosts_of,
    identity_of,
    kind_of,
    samples_of,
)
from bench.identity import NOTHING, Identity

Place = tuple[Any, ...]
"""Values of the axes that both sides share, and the words for which results these are."""
Results = Mapping[Place, Sequence[pd.DataFrame]]
"""The results of one configuration at each point, that which last ran last."""


class Match(NamedTuple):
    """A row of a comparison: a result of each side."""

    baseline: pd.DataFrame | None
    """None: the folder has no such configuration; of one of the two at most."""
    candidate: pd.DataFrame | None
    apart: str
    """Why the two are no pair; empty: they are."""


class Rule(NamedTuple):
    """What a pair must agree in."""

    compared: Collection[str]
    """Axes in which the sides are meant to differ."""
    across_machines: bool
    then_and_now: bool = False
    """Whether the sides are of two folders: code and versions may then differ, and hosts do."""

    def apart(self, left: pd.DataFrame, right: pd.DataFrame) -> str:
        """Why two results are no pair; empty where they are."""
        one, other = identity_of(left), identity_of(right)
        if self.then_and_now:
            one, other = (Identity(NOTHING, NOTHING, side.machine) for side in (one, other))
        why = disagreement(one, other, self.compared, self.across_machines)
        timed = [side[side.tokens_per_s.notna()] for side in (left, right)]
        if why or any(side.empty for side in timed):
            return why
        if set(samples_of(timed[0])) & set(samples_of(timed[1])):
            return ""
        hosts = [", ".join(sorted(hosts_of(side))) for side in timed]
        return "" if hosts[0] == hosts[1] else f"no host ran both ({hosts[0]} | {hosts[1]})"


def results(chosen: pd.DataFrame) -> list[pd.DataFrame]:
    """The results in a frame of one configuration, that which last ran last."""
    found = [trials for _, trials in chosen.groupby(RESULT, sort=False)]
    return sorted(found, key=lambda trials: (trials.started.max(), str(trials.variant.iloc[0])))


def matches(left: Results, right: Results, rule: Rule) -> dict[Place, Match]:
    """Every pair at every point; what has no partner stands beside the other side's latest.

    The keys are the points, with the words for the results of the pair as last value.
    """
    found: dict[Place, Match] = {}
    for point in dict.fromkeys([*left, *right]):
        for match in _at(left.get(point, ()), right.get(point, ()), rule):
            words = _words(match)
            while (*point, words) in found:
                words += "'"
            found[(*point, words)] = match
    return found


def between(
    match: Match, candidates: Sequence[pd.DataFrame], first: Rule, second: Rule
) -> pd.DataFrame | None:
    """The latest result that pairs with both sides of a match; None where there is none."""
    if match.baseline is None or match.candidate is None or match.apart:
        return None
    for one in reversed(candidates):
        if not (first.apart(match.baseline, one) or second.apart(one, match.candidate)):
            return one
    return None


def of_one_kind(found: Mapping[Place, Match], rule: Rule, varying: Iterable[str]) -> list[Place]:
    """The most points whose pairs are of one code, one set of versions and one class of machine.

    Only these can be put into one number; of equally many, those that come last. `varying` are
    the axes in which the points differ, with which code and versions may.
    """
    names = list(varying)
    groups: dict[Any, list[Place]] = {}
    for place, match in found.items():
        if match.baseline is not None and match.candidate is not None and not match.apart:
            kind = tuple(
                kind_of(identity_of(side), names, rule.across_machines)
                for side in (match.baseline, match.candidate)
            )
            groups.setdefault(kind, []).append(place)
    return max(reversed(groups.values()), key=len, default=[])


def _at(left: Sequence[pd.DataFrame], right: Sequence[pd.DataFrame], rule: Rule) -> list[Match]:
    """The matches at one point."""
    if not left or not right:
        return [Match(one, None, "") for one in left] + [Match(None, one, "") for one in right]
    why = {(i, j): rule.apart(a, b) for i, a in enumerate(left) for j, b in enumerate(right)}
    pairs = [place for place, apart in why.items() if not apart]
    lonely = {(i, len(right) - 1) for i in range(len(left)) if i not in {i for i, _ in pairs}}
    lonely |= {(len(left) - 1, j) for j in range(len(right)) if j not in {j for _, j in pairs}}
    return [Match(left[i], right[j], why[i, j]) for i, j in sorted({*pairs, *lonely})]


def _words(match: Match) -> str:
    """`code unknown`, or each side's where they are not called the same."""
    sides = (("baseline", match.baseline), ("candidate", match.candidate))
    known = {name: str(side.variant.iloc[0]) for name, side in sides if side is not None}
    if len(set(known.values())) == 1:
        return next(iter(known.values()))
    return "; ".join(f"{name}: {words}" for name, words in known.items() if words)
