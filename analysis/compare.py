"""A candidate against a baseline: `compare`, and what to say about it.

from analysis.compare import compare, natural_pairs, sentences
for pair in natural_pairs(frame):
    print(*sentences(compare(frame, pair.baseline, pair.candidate)))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis import conditions, references, sketch_files
from analysis.comparison import (
    NO_NUMBER,
    NOT_PAIRED,
    NOT_VALID,
    Comparison,
    Decomposition,
    Effect,
    Pair,
    Point,
    Selector,
    Side,
)
from analysis.decomposition import Rates, Route, decomposition, routes, steps
from analysis.folders import beside
from analysis.gradients import gradients_of
from analysis.identities import SAMPLE, cautions, latest, samples_of
from analysis.pairing import Match, Place, Results, Rule, between, matches, of_one_kind, results
from analysis.pooling import counted, pooled
from analysis.reading import AnalysisError
from analysis.selection import axes_in, find, natural_pairs, parse_selector, select, text_of
from analysis.sentences import sentences
from analysis.statistics import (
    SMALLEST,
    Figure,
    Logs,
    figure_of_rounds,
    median,
    paired_logs,
    paired_means,
    ratio_of,
)
from analysis.table import natural, varying_axes
from bench.identity import NOTHING
from bench.record import PHASES

__all__ = [
    "NOT_PAIRED",
    "NOT_VALID",
    "NO_NUMBER",
    "Comparison",
    "Decomposition",
    "Effect",
    "Pair",
    "Point",
    "Selector",
    "Side",
    "against",
    "compare",
    "comparisons",
    "natural_pairs",
    "sentences",
]

_FOLLOWS = {"sp": ("dp",), "world": ("dp",), "dp": ("sp",)}
"""What changes with an axis without being another choice."""


def comparisons(
    frame: pd.DataFrame,
    baseline: str | None = None,
    candidate: str | None = None,
    smallest: float = SMALLEST,
    before: pd.DataFrame | None = None,
) -> list[Comparison]:
    """The comparison of two sides as users write them (`environment=torch-2.2 loss=local`).

    Without sides, those that the folder was made for. `before` is another folder's frame, whose
    trials are the baseline: the same configurations then and now, unless sides choose among them.
    Raises AnalysisError as `compare`, and when only one side is given or there is nothing to
    compare.
    """
    if before is not None:
        left = parse_selector(baseline, "baseline") if baseline else {}
        right = parse_selector(candidate, "candidate") if candidate else {}
        return [against(before, frame, left, right, smallest)]
    if baseline and candidate:
        left, right = parse_selector(baseline, "baseline"), parse_selector(candidate, "candidate")
        return [compare(frame, left, right, smallest)]
    if baseline or candidate:
        given, missing = ("baseline", "candidate") if baseline else ("candidate", "baseline")
        raise AnalysisError(f"--{given} without --{missing}; give both, or none for natural pairs")
    pairs = natural_pairs(frame)
    if not pairs:
        raise AnalysisError(
            "nothing to compare: no axis has several values here; sweep two environments or "
            "loss aggregations, or name --baseline and --candidate"
        )
    return [compare(frame, pair.baseline, pair.candidate, smallest) for pair in pairs]


def compare(
    frame: pd.DataFrame, baseline: Selector, candidate: Selector, smallest: float = SMALLEST
) -> Comparison:
    """`candidate` against `baseline` at every point of `analysis.frame.load`'s frame.

    Both are values of axes, such as `{"environment": "torch-2.2", "loss": "all_gather"}`. A point
    is a combination of all other axes. `smallest` is the relative difference that matters.

    Raises AnalysisError for an axis or a value that the frame lacks, and where a selector
    leaves several configurations at a point.
    """
    shared = _shared_axes(frame, {*baseline, *candidate})
    left = _by_place(select(frame, baseline, "baseline"), shared, "baseline")
    right = _by_place(select(frame, candidate, "candidate"), shared, "candidate")
    _refuse_overlap(left, right)
    rule = Rule({*baseline, *candidate}, bool(frame.attrs.get("across_machines")))
    found, ways = matches(left, right, rule), routes(baseline, candidate)
    return _compared(frame, found, (baseline, candidate), shared, rule, smallest, ways)


def against(
    before: pd.DataFrame,
    frame: pd.DataFrame,
    baseline: Selector,
    candidate: Selector,
    smallest: float = SMALLEST,
) -> Comparison:
    """`frame` against the trials of another folder, `before`, at every point.

    Without selectors a point is a configuration. Rounds are paired in their order: the folders were
    recorded at different times, so a pair shares no drift, and the interval is as wide as that of
    independent samples. Code and versions may differ between them; of each the latest result
    counts. Classes of machines must agree. Raises AnalysisError as `compare`.
    """
    names = [str(one.attrs.get("folder", "results")) for one in (before, frame)]
    across = any(one.attrs.get("across_machines") for one in (before, frame))
    skipped = [line for one in (before, frame) for line in one.attrs.get("skipped", ())]
    classes = sorted({*before.machine_class, *frame.machine_class} - {NOTHING})
    before, frame = beside(latest(before), latest(frame), across)
    every = pd.concat([before, frame])
    every.attrs = {
        "skipped": skipped,
        "joined_machines": classes if across and len(classes) > 1 else [],
    }
    shared = _shared_axes(every, {*baseline, *candidate})
    left = _by_place(select(before, baseline, "baseline"), shared, "baseline")
    right = _by_place(select(frame, candidate, "candidate"), shared, "candidate")
    sides = {"results": names[0], **baseline}, {"results": names[1], **candidate}
    rule = Rule({*baseline, *candidate}, across, then_and_now=True)
    return _compared(every, matches(left, right, rule), sides, shared, rule, smallest, [])


def _compared(
    frame: pd.DataFrame,
    found: Mapping[Place, Match],
    sides: tuple[Selector, Selector],
    shared: list[str],
    rule: Rule,
    smallest: float,
    ways: list[Route],
) -> Comparison:
    """The comparison of two sides whose results are known at each point."""
    baseline, candidate = sides
    some = [side for match in found.values() for side in match[:2] if side is not None]
    shown = {name: shared.index(name) for name in varying_axes(pd.concat(some)) if name in shared}
    logs = _all_logs(found)
    alike = of_one_kind({place: found[place] for place in logs}, rule, shown)
    if any(place[-1] for place in found):
        shown["variant"] = len(shared)
    split = _best_split(frame, shared, found, alike, ways, rule)
    # stable, so that results of one point stay in the order in which they were measured
    every_place = sorted(found, key=lambda place: [natural(value) for value in place[:-1]])
    kept = [logs[place] for place in every_place if place in alike]
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        smallest=smallest,
        axes=tuple(shown),
        points=tuple(
            _point(
                {name: place[index] for name, index in shown.items()},
                found[place],
                split.at(place, smallest) if split else None,
                smallest,
                frame.attrs.get("folder"),
            )
            for place in every_place
        ),
        overall=pooled(kept, smallest),
        counted=counted(kept),
        decomposition=split.overall(smallest) if split else None,
        left_out=len(logs) - len(kept),
        cautions=(*cautions(frame), *conditions.imports(pd.concat(some), mark="")),
        skipped=tuple(frame.attrs.get("skipped", ())),
    )


@dataclass(frozen=True)
class _Split:
    """A route, and the logarithms of its steps at every point that has them."""

    route: Route
    steps: Mapping[Place, tuple[Logs, Logs]]
    pooled: list[Place]
    """The points among them that may be put into one number."""

    def at(self, place: Place, smallest: float) -> Decomposition | None:
        if place not in self.steps:
            return None
        return decomposition(self.route, [self.steps[place]], smallest)

    def overall(self, smallest: float) -> Decomposition | None:
        if not self.pooled:
            return None
        return decomposition(self.route, [self.steps[place] for place in self.pooled], smallest)


def _best_split(
    frame: pd.DataFrame,
    shared: list[str],
    found: Mapping[Place, Match],
    alike: list[Place],
    ways: list[Route],
    rule: Rule,
) -> _Split | None:
    """The route that has numbers at the most points, the first of equals; None without any."""
    splits = []
    for route in ways:
        middle = _by_place(find(frame, route.between), shared, "the configuration in between")
        rules = [rule._replace(compared={axis}) for axis in (route.first, route.second)]
        at = {}
        for place, match in found.items():
            one = between(match, middle.get(place[:-1], ()), *rules)
            if one is not None:
                left, right = _pair(match)
                at[place] = steps(*(_valid_rates(side) for side in (left, one, right)))
        timed = {place: two for place, two in at.items() if two[0]}
        splits.append(_Split(route, timed, [place for place in alike if place in timed]))
    best = max(splits, key=lambda split: len(split.steps), default=None)
    return best if best and best.steps else None


def _all_logs(found: Mapping[Place, Match]) -> dict[Place, Logs]:
    """The logarithms at each point whose pair has some."""
    every = {
        place: _valid_logs(match.baseline, match.candidate)
        for place, match in found.items()
        if match.baseline is not None and match.candidate is not None and not match.apart
    }
    return {place: logs for place, logs in every.items() if logs}


def _pair(match: Match) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both sides of a match that has both."""
    assert match.baseline is not None and match.candidate is not None
    return match.baseline, match.candidate


def _shared_axes(frame: pd.DataFrame, compared: set[str]) -> list[str]:
    """All axes but those compared and what follows from them (`model.layers` from `model`)."""
    follows = {name for key in compared for name in _FOLLOWS.get(key, ())}
    return [
        name
        for name in axes_in(frame)
        if name not in compared | follows and name.partition(".")[0] not in compared
    ]


def _by_place(chosen: pd.DataFrame, shared: list[str], side: str) -> Results:
    """Results by point; AnalysisError where a point has more than one configuration."""
    found: dict[Place, pd.DataFrame] = {}
    for _, trials in chosen.groupby("config_hash", sort=False):
        place = tuple(_plain(trials[name].iloc[0]) for name in shared)
        if place in found:
            raise AnalysisError(_ambiguity(pd.concat([found[place], trials]), side))
        found[place] = trials
    return {place: results(trials) for place, trials in found.items()}


def _plain(value: Any) -> Any:
    """A cell as a Python value; None where it is missing."""
    value = getattr(value, "item", lambda: value)()
    return None if value != value else value


def _ambiguity(trials: pd.DataFrame, side: str) -> str:
    differing = varying_axes(trials)
    if not differing:
        return (
            f"{side}: two configurations differ in nothing that an axis names (hashes "
            f"{', '.join(trials.config_hash.unique())}); keep them in folders of their own"
        )
    axis = differing[0]
    values = ", ".join(map(text_of, sorted(trials[axis].unique().tolist(), key=natural)))
    return f"{side}: several configurations at one point; add {axis}=…, one of {values}"


def _refuse_overlap(left: Results, right: Results) -> None:
    hashes = [{at[0].config_hash.iloc[0] for at in side.values()} for side in (left, right)]
    if hashes[0] & hashes[1]:
        raise AnalysisError(
            "baseline and candidate name the same configurations; let them differ in one axis"
        )


def _point(
    axes: Mapping[str, Any],
    match: Match,
    split: Decomposition | None,
    smallest: float,
    folder: str | None,
) -> Point:
    left, right, apart = match
    baseline, candidate = _side(left), _side(right)
    pair = left is not None and right is not None and not apart
    ratio = ratio_of(_logs(left, right) if pair else {}, smallest)
    verdict = ratio.verdict
    if not (baseline.has_number and candidate.has_number):
        verdict = NO_NUMBER
    elif apart:
        verdict = NOT_PAIRED
    elif not (baseline.timings_valid and candidate.timings_valid):
        verdict = NOT_VALID
    peaks = (candidate.peak_memory_bytes, baseline.peak_memory_bytes)
    return Point(
        axes=axes,
        baseline=baseline,
        candidate=candidate,
        ratio=ratio,
        verdict=verdict,
        phases_s=_phases(left, right) if pair else {},
        memory_ratio=peaks[0] / peaks[1] if pair and peaks[0] and peaks[1] else None,
        decomposition=split,
        sketch=sketch_files.of_sides(folder, right, left),
        paired_tokens_per_s=paired_means(_rates(left), _rates(right)) if pair else None,
        apart=apart,
    )


def _side(trials: pd.DataFrame | None) -> Side:
    if trials is None:
        return Side(None, {}, "", None, None, None, "", None, "", "", "", 0, False, True)
    peak = trials.peak_memory_bytes.max()
    scales = trials.gradient_scale.dropna().tolist()
    return Side(
        config_hash=trials.config_hash.iloc[0],
        statuses={str(name): int(count) for name, count in trials.status.value_counts().items()},
        failure=_distinct(trials.failure),
        tokens_per_s=_figure(trials.tokens_per_s),
        step_s=_figure(trials.step_s),
        peak_memory_bytes=None if peak != peak else float(peak),
        gradient_verdict=_distinct(trials.gradient_verdict),
        gradient_scale=median(scales) if scales else None,
        gradient_scale_label=_distinct(trials.gradient_scale_label),
        gradient_mode=_distinct(trials.gradient_mode[trials.gradient_verdict.notna()]),
        gradient_reason=_distinct(trials.gradient_reason[trials.status == "ok"]),
        gradient_other=references.words(trials),
        noisy=int((trials.noisy != "").sum()),
        emulated=bool(trials.emulated.any()),
        timings_valid=bool(trials.timings_valid.all()),
        gradients=gradients_of(trials),
    )


def _figure(values: pd.Series) -> Figure | None:
    rounds = values.dropna().tolist()
    return figure_of_rounds(rounds) if rounds else None


def _distinct(texts: pd.Series) -> str:
    return "; ".join(dict.fromkeys(texts.dropna()))


def _rates(trials: pd.DataFrame) -> Rates:
    timed = trials[trials.tokens_per_s.notna()]
    return dict(zip(samples_of(timed), timed.tokens_per_s.tolist(), strict=True))


def _valid_rates(trials: pd.DataFrame) -> Rates:
    return _rates(trials) if trials.timings_valid.all() else {}


def _logs(left: pd.DataFrame, right: pd.DataFrame) -> Logs:
    return paired_logs(_rates(left), _rates(right))


def _valid_logs(left: pd.DataFrame, right: pd.DataFrame) -> Logs:
    return paired_logs(_valid_rates(left), _valid_rates(right))


def _phases(left: pd.DataFrame, right: pd.DataFrame) -> dict[str, float]:
    """Candidate's seconds minus baseline's: the median over the rounds that both have."""
    rounds = [side.assign(hostname=side.hostname.fillna("")) for side in (left, right)]
    rounds = [side.set_index(SAMPLE) for side in rounds]
    differences = {}
    for name in (*PHASES, "step"):
        paired = (rounds[1][f"{name}_s"] - rounds[0][f"{name}_s"]).dropna().tolist()
        if paired:
            differences[name] = median(paired)
    return differences
