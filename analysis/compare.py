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

from analysis import references, sketch_files
from analysis.comparison import (
    NO_NUMBER,
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
from bench.record import PHASES

__all__ = [
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

Place = tuple[Any, ...]
"""Values of the axes that both sides share: which point it is."""
Places = Mapping[Place, pd.DataFrame]
"""The trials of one configuration at each point."""

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
    shared, folder = _shared_axes(frame, {*baseline, *candidate}), frame.attrs.get("folder")
    left = _by_place(select(frame, baseline, "baseline"), shared, "baseline")
    right = _by_place(select(frame, candidate, "candidate"), shared, "candidate")
    _refuse_overlap(left, right)
    split = _best_split(frame, shared, left, right, routes(baseline, candidate))
    return _compared((left, right), (baseline, candidate), shared, split, smallest, folder)


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
    independent samples. Raises AnalysisError as `compare`.
    """
    names = [str(one.attrs.get("folder", "results")) for one in (before, frame)]
    before, frame = beside(before, frame)
    every = pd.concat([before, frame])
    shared = _shared_axes(every, {*baseline, *candidate})
    left = _by_place(select(before, baseline, "baseline"), shared, "baseline")
    right = _by_place(select(frame, candidate, "candidate"), shared, "candidate")
    sides = {"results": names[0], **baseline}, {"results": names[1], **candidate}
    return _compared((left, right), sides, shared, None, smallest, None)


def _compared(
    places: tuple[Places, Places],
    sides: tuple[Selector, Selector],
    shared: list[str],
    split: _Split | None,
    smallest: float,
    folder: str | None,
) -> Comparison:
    """The comparison of two sides whose trials are known at each point."""
    (left, right), (baseline, candidate) = places, sides
    every = pd.concat([*left.values(), *right.values()])
    shown = {name: shared.index(name) for name in varying_axes(every) if name in shared}
    every_place = sorted({*left, *right}, key=lambda place: [natural(value) for value in place])
    both = [place for place in every_place if place in left and place in right]
    logs = [_valid_logs(left[place], right[place]) for place in both]
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        smallest=smallest,
        axes=tuple(shown),
        points=tuple(
            _point(
                {name: place[index] for name, index in shown.items()},
                left.get(place),
                right.get(place),
                split.at(place, smallest) if split else None,
                smallest,
                folder,
            )
            for place in every_place
        ),
        overall=pooled(logs, smallest),
        counted=counted(logs),
        decomposition=split.overall(smallest) if split else None,
    )


@dataclass(frozen=True)
class _Split:
    """A route, and the logarithms of its steps at every point that has them."""

    route: Route
    steps: Mapping[Place, tuple[Logs, Logs]]

    def at(self, place: Place, smallest: float) -> Decomposition | None:
        if place not in self.steps:
            return None
        return decomposition(self.route, [self.steps[place]], smallest)

    def overall(self, smallest: float) -> Decomposition | None:
        return decomposition(self.route, list(self.steps.values()), smallest)


def _best_split(
    frame: pd.DataFrame, shared: list[str], left: Places, right: Places, ways: list[Route]
) -> _Split | None:
    """The route that has numbers at the most points, the first of equals; None without any."""
    found = []
    for route in ways:
        between = _by_place(find(frame, route.between), shared, "the configuration in between")
        at = {
            place: steps(*(_valid_rates(side[place]) for side in (left, between, right)))
            for place in left
            if place in between and place in right
        }
        found.append(_Split(route, {place: two for place, two in at.items() if two[0]}))
    best = max(found, key=lambda split: len(split.steps), default=None)
    return best if best and best.steps else None


def _shared_axes(frame: pd.DataFrame, compared: set[str]) -> list[str]:
    """All axes but those compared and what follows from them (`model.layers` from `model`)."""
    follows = {name for key in compared for name in _FOLLOWS.get(key, ())}
    return [
        name
        for name in axes_in(frame)
        if name not in compared | follows and name.partition(".")[0] not in compared
    ]


def _by_place(chosen: pd.DataFrame, shared: list[str], side: str) -> Places:
    """Trials by point; AnalysisError where a point has more than one configuration."""
    found: dict[Place, pd.DataFrame] = {}
    for _, trials in chosen.groupby("config_hash", sort=False):
        place = tuple(_plain(trials[name].iloc[0]) for name in shared)
        if place in found:
            raise AnalysisError(_ambiguity(pd.concat([found[place], trials]), side))
        found[place] = trials
    return found


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


def _refuse_overlap(left: Places, right: Places) -> None:
    hashes = [{trials.config_hash.iloc[0] for trials in side.values()} for side in (left, right)]
    if hashes[0] & hashes[1]:
        raise AnalysisError(
            "baseline and candidate name the same configurations; let them differ in one axis"
        )


def _point(
    axes: Mapping[str, Any],
    left: pd.DataFrame | None,
    right: pd.DataFrame | None,
    split: Decomposition | None,
    smallest: float,
    folder: str | None,
) -> Point:
    baseline, candidate = _side(left), _side(right)
    both = left is not None and right is not None
    ratio = ratio_of(_logs(left, right) if both else {}, smallest)
    verdict = ratio.verdict
    if not (baseline.has_number and candidate.has_number):
        verdict = NO_NUMBER
    elif not (baseline.timings_valid and candidate.timings_valid):
        verdict = NOT_VALID
    peaks = (candidate.peak_memory_bytes, baseline.peak_memory_bytes)
    return Point(
        axes=axes,
        baseline=baseline,
        candidate=candidate,
        ratio=ratio,
        verdict=verdict,
        phases_s=_phases(left, right) if both else {},
        memory_ratio=peaks[0] / peaks[1] if peaks[0] and peaks[1] else None,
        decomposition=split,
        sketch=sketch_files.of_sides(folder, right, left),
        paired_tokens_per_s=paired_means(_rates(left), _rates(right)) if both else None,
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
    return dict(zip(timed["round"].tolist(), timed.tokens_per_s.tolist(), strict=True))


def _valid_rates(trials: pd.DataFrame) -> Rates:
    return _rates(trials) if trials.timings_valid.all() else {}


def _logs(left: pd.DataFrame, right: pd.DataFrame) -> Logs:
    return paired_logs(_rates(left), _rates(right))


def _valid_logs(left: pd.DataFrame, right: pd.DataFrame) -> Logs:
    return paired_logs(_valid_rates(left), _valid_rates(right))


def _phases(left: pd.DataFrame, right: pd.DataFrame) -> dict[str, float]:
    """Candidate's seconds minus baseline's: the median over the rounds that both have."""
    rounds = left.set_index("round"), right.set_index("round")
    differences = {}
    for name in (*PHASES, "step"):
        paired = (rounds[1][f"{name}_s"] - rounds[0][f"{name}_s"]).dropna().tolist()
        if paired:
            differences[name] = median(paired)
    return differences
