"""A comparison in plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from analysis import sketch_words
from analysis.comparison import (
    NO_NUMBER,
    NOT_PAIRED,
    NOT_VALID,
    Comparison,
    Effect,
    Point,
    Selector,
    Side,
)
from analysis.gradients import WRONG
from analysis.places import where
from analysis.pooling import Counted
from analysis.precision_words import dependence, hidden, independence
from analysis.selection import UPGRADED, WORKAROUND
from analysis.statistics import FASTER, FEWEST, NO_DIFFERENCE, SLOWER, TOO_FEW, Ratio
from analysis.wording import marked

Key = TypeVar("Key")
_NAMED = ("environment", "loss")
_ORDER = (FASTER, SLOWER, NO_DIFFERENCE, TOO_FEW, NOT_VALID, NOT_PAIRED, NO_NUMBER)


class Names(NamedTuple):
    """What the sides are called within a sentence."""

    baseline: str
    candidate: str


def sentences(comparison: Comparison) -> list[str]:
    """The answer in sentences: speed, failures, gradients, and what limits them."""
    parts = (_definition, _speed, _apart, _overall, _failures, _gradients, _sketches, _limits)
    return [one[:1].upper() + one[1:] for part in parts for one in part(comparison)]


def label(selector: Selector) -> str:
    """A side in a few words: `torch-2.13 with all_gather`, `zero=1` for other axes."""
    named = " with ".join(selector[key] for key in _NAMED if key in selector)
    others = [f"{key}={value}" for key, value in selector.items() if key not in _NAMED]
    return " ".join([*([named] if named else []), *others])


def names_of(comparison: Comparison) -> Names:
    """The sides' labels, or `the workaround` and `upgrading` where they are that."""
    left, right = comparison.baseline, comparison.candidate
    if _is_upgrade(left, right):
        return Names("the workaround", "upgrading")
    return Names(label(left), label(right))


def effect_of(effect: Effect) -> str:
    """`environment torch-2.2 → torch-2.13 with loss=all_gather`."""
    held = " ".join(f"{key}={value}" for key, value in effect.held.items())
    return f"{effect.axis} {effect.before} → {effect.after} with {held}"


def ratio_of_words(ratio: Ratio) -> str:
    """`1.05 (1.02 to 1.08)`: a ratio with its interval, where it has one."""
    if ratio.value is None:
        return "unknown"
    if ratio.interval is None:
        return f"{ratio.value:.2f}"
    return f"{ratio.value:.2f} ({ratio.interval.low:.2f} to {ratio.interval.high:.2f})"


def _is_upgrade(left: Selector, right: Selector) -> bool:
    changed = "environment" in left and left["environment"] != right.get("environment")
    return changed and (left.get("loss"), right.get("loss")) == (WORKAROUND, UPGRADED)


def _definition(comparison: Comparison) -> Iterator[str]:
    left, right = comparison.baseline, comparison.candidate
    if _is_upgrade(left, right):
        yield f"Upgrading is {label(right)}; the workaround is {label(left)}."


def _grouped(
    comparison: Comparison, key: Callable[[Point], Key]
) -> Iterator[tuple[Key, str, list[Point]]]:
    """Points with the same `key`: the key, words for where they are, and the points."""
    groups: dict[Key, list[Point]] = {}
    for point in comparison.points:
        groups.setdefault(key(point), []).append(point)
    for value, points in groups.items():
        for words, piece in where(points, comparison.points, comparison.axes):
            yield value, f"{words}, " if words else "", piece


def _speed(comparison: Comparison) -> Iterator[str]:
    found = list(_grouped(comparison, _kind))
    for (verdict, _, wrong), place, points in sorted(found, key=lambda o: _ORDER.index(o[0][0])):
        text = _verdict_words(comparison, verdict, [point.ratio for point in points])
        if text:
            yield f"{place}{text}{', with a wrong gradient' if wrong else ''}."
    if all(point.verdict == NO_NUMBER for point in comparison.points):
        yield "nowhere do both sides have a number, so nothing is said about speed."


def _kind(point: Point) -> tuple[str, bool, bool]:
    """What a sentence says of all its points: the verdict, whether rounds are dependent, and
    whether what is faster has a wrong gradient.
    """
    dependent = point.ratio.dependent and point.verdict not in (
        NO_NUMBER,
        NOT_PAIRED,
        NOT_VALID,
    )
    wrong = point.verdict == FASTER and point.candidate.gradients.kind == WRONG
    return point.verdict, dependent, wrong


def _verdict_words(comparison: Comparison, verdict: str, ratios: Sequence[Ratio]) -> str:
    """What follows from the ratios of some points that have the same verdict."""
    names = names_of(comparison)
    if verdict in (FASTER, SLOWER):
        times = _times(ratios, inverse=verdict == SLOWER)
        text = f"{names.candidate} is {times} times {verdict} than {names.baseline}"
        return text + dependence(ratios)
    if verdict == NO_DIFFERENCE:
        return f"no difference seen; {hidden(ratios, comparison.smallest)}{dependence(ratios)}"
    if verdict == TOO_FEW:
        fewest = min(ratio.rounds for ratio in ratios)
        return f"too few rounds for a verdict: {fewest} in common, {FEWEST} are needed"
    if verdict == NOT_VALID:
        return "ranks shared GPUs, so the times are no measure and there is no verdict"
    return ""


def _apart(comparison: Comparison) -> Iterator[str]:
    """Which points are no pair, and why."""
    for why, place, _ in _grouped(comparison, lambda point: point.apart):
        if why:
            yield f"{place}the sides are not paired: {why}."
    if comparison.left_out:
        points = "1 point is" if comparison.left_out == 1 else f"{comparison.left_out} points are"
        yield f"{points} of other code, versions or machines, and not in the overall ratio."


def _times(ratios: Sequence[Ratio], inverse: bool) -> str:
    """`1.12 to 1.18`; a single ratio with its interval."""
    if len(ratios) == 1 and ratios[0].value and ratios[0].interval:
        value, low, high = ratios[0].value, ratios[0].interval.low, ratios[0].interval.high
        if inverse:
            value, low, high = 1 / value, 1 / high, 1 / low
        return f"{value:.2f} ({low:.2f} to {high:.2f})"
    values = sorted((1 / r.value if inverse else r.value) for r in ratios if r.value)
    words = [f"{values[0]:.2f}", f"{values[-1]:.2f}"]
    return " to ".join(dict.fromkeys(words))


def _overall(comparison: Comparison) -> Iterator[str]:
    """The mean over the points, and what it is made of."""
    names = names_of(comparison)
    made_of, overall = comparison.counted, comparison.overall
    if made_of.points > 1 and overall.interval:
        yield (
            f"over {_points(made_of)} where both have numbers ({_rounds(made_of)}), "
            f"{names.candidate} runs at {ratio_of_words(overall)} times the speed of "
            f"{names.baseline}: {overall.verdict}{_merit(comparison)}{dependence([overall])}"
            f"{_left_out(made_of)}."
        )
    parts = comparison.decomposition
    if parts is not None:
        yield (
            f"over {_points(parts.counted)} where the configuration in between has numbers too "
            f"({_rounds(parts.counted)}), total {ratio_of_words(parts.total)} = "
            f"{effect_of(parts.first)}: {ratio_of_words(parts.first.ratio)} × "
            f"{effect_of(parts.second)}: {ratio_of_words(parts.second.ratio)}"
            f"{_left_out(parts.counted)}."
        )


def _merit(comparison: Comparison) -> str:
    """What speaks against being faster over all points: gradients that are wrong at some."""
    wrong = any(point.candidate.gradients.kind == WRONG for point in comparison.points)
    return ", with wrong gradients" if wrong and comparison.overall.verdict == FASTER else ""


def _points(made_of: Counted) -> str:
    return "the point" if made_of.points == 1 else f"the {made_of.points} points"


def _rounds(made_of: Counted) -> str:
    """`3 to 10 rounds each`."""
    few, many = made_of.fewest_rounds, made_of.most_rounds
    each = " each" if made_of.points > 1 else ""
    return f"{many} rounds{each}" if few == many else f"{few} to {many} rounds{each}"


def _left_out(made_of: Counted) -> str:
    if not made_of.left_out:
        return ""
    points = "1 point" if made_of.left_out == 1 else f"{made_of.left_out} points"
    return f"; {points} with fewer than {FEWEST} rounds left out"


def _failures(comparison: Comparison) -> Iterator[str]:
    names = names_of(comparison)
    of_baseline = _grouped(comparison, lambda point: _ended(point.baseline))
    of_candidate = _grouped(comparison, lambda point: _ended(point.candidate))
    for name, groups in ((names.baseline, of_baseline), (names.candidate, of_candidate)):
        for ended, place, _ in groups:
            if ended:
                yield f"{place}{name} {ended}."


def _ended(side: Side) -> str:
    """What became of the trials that left no number; empty where all did."""
    if side.config_hash is None:
        return "was not run"
    total = sum(side.statuses.values())
    failed = {status: count for status, count in side.statuses.items() if status != "ok"}
    if not failed:
        return ""
    ways = ", ".join(f"{status} in {n:,} of {total:,}" for status, n in failed.items())
    lead = "left no number in some trials: " if side.has_number else "has no number: "
    return f"{lead}{ways} ({side.failure})"


def _gradients(comparison: Comparison) -> Iterator[str]:
    """What both gradients are beside the exact reference."""
    names = names_of(comparison)
    upgrade = _is_upgrade(comparison.baseline, comparison.candidate)

    def both(point: Point) -> str:
        left, right = _gradient(point.baseline), _gradient(point.candidate)
        if left == right:
            return f"both gradients are {left}" if left else ""
        one, other = (f"is {what}" if what else "was not compared" for what in (left, right))
        if upgrade:
            return f"the workaround's gradient {one} and {UPGRADED}'s {other}"
        return f"the gradient of {names.baseline} {one} and that of {names.candidate} {other}"

    for text, place, _ in _grouped(comparison, both):
        if text:
            yield f"{place}{text}."
    for text, place, _ in _grouped(comparison, lambda point: _other(point, names)):
        if text:
            yield f"{place}{text}."
    sides = [side for point in comparison.points for side in (point.baseline, point.candidate)]
    for reason in dict.fromkeys(side.gradient_reason for side in sides):
        if reason:
            yield f"gradients {reason}."


def _other(point: Point, names: Names) -> str:
    """The gradients beside the reference of the other definition, where that says another thing."""
    found = (point.baseline.gradient_other, point.candidate.gradient_other)
    if found[0] == found[1]:
        return _is_beside("both gradients are", found[0]) if found[0] else ""
    told = [_is_beside(f"the gradient of {name} is", one) for name, one in zip(names, found) if one]
    return ", and ".join(told)


def _is_beside(whose: str, other: str) -> str:
    """`beside token_mean both gradients are 2.9 % off`."""
    name, _, what = other.partition(": ")
    return f"beside {name} {whose} {'right' if what == 'match' else what}"


def _gradient(side: Side) -> str:
    """`right`, `twice too large`; empty where it was not compared."""
    if side.gradient_verdict == "scaled":
        return marked(_scaled(side.gradient_scale_label), side.gradient_mode)
    verdicts = {"match": "right", "wrong": "wrong in direction", "none": "missing", "": ""}
    mixed = f"not the same in all rounds ({side.gradient_verdict})"
    return marked(verdicts.get(side.gradient_verdict, mixed), side.gradient_mode)


def _sketches(comparison: Comparison) -> Iterator[str]:
    """What the sketches say of the two gradients, where there are two."""
    names = names_of(comparison)
    upgrade = _is_upgrade(comparison.baseline, comparison.candidate)
    candidate = UPGRADED if upgrade else names.candidate
    for words, place, points in _grouped(comparison, lambda one: sketch_words.kind(one.sketch)):
        found = [point.sketch for point in points if point.sketch is not None]
        if words:
            yield f"{place}{sketch_words.sentence(found, names.baseline, candidate)}."


def _scaled(scale: str) -> str:
    """Words for `×2`, `×4`, `×1/2` or a number."""
    number = scale.removeprefix("×")
    if number == "2":
        return "twice too large"
    if number.isdigit():
        return f"{number} times too large"
    if number == "1/2":
        return "half of what it should be"
    return f"{number} of what it should be"


def _limits(comparison: Comparison) -> Iterator[str]:
    """What a reader must know before using the numbers."""
    yield from (f"{line}." for line in comparison.cautions)
    sides = [side for point in comparison.points for side in (point.baseline, point.candidate)]
    if any(side.emulated for side in sides):
        yield (
            "times are of torch's NCCL code path emulated on gloo: they say nothing about NCCL "
            "on GPUs."
        )
    noisy, trials = sum(side.noisy for side in sides), sum(sum(s.statuses.values()) for s in sides)
    if noisy:
        yield f"{noisy:,} of {trials:,} trials ran while the machine was not quiet; they count."
    yield from independence([point.ratio for point in comparison.points])
