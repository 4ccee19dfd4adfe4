"""Whether a candidate may pass, in continuous integration say: speed, memory, gradients, errors.

A gate that had nothing to judge does not pass: silence is no proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.comparison import NO_NUMBER, NOT_PAIRED, NOT_VALID, Comparison, Point, Side
from analysis.gradients import Gradients, gradients_of
from analysis.identities import RESULT
from analysis.selection import text_of
from analysis.sentences import label
from analysis.statistics import SLOWER, TOO_FEW, verdict
from analysis.table import row_axes
from bench.record import Status

WRONG, ERROR = "--fail-if-wrong", "--fail-on-error"
GATE_NAMES = {"wrong": WRONG, "error": ERROR}
PASSING = (Status.OK.value, Status.UNSUPPORTED.value)
"""Statuses that are no error: `unsupported` is what nobody can run."""
NAMED = ("environment", "loss", "zero")
"""Axes that name a configuration even where they do not vary."""


@dataclass(frozen=True)
class Gates:
    """What is refused; what is None or False is not asked for."""

    slower: float | None = None
    """Relative slowdown from which on a candidate is refused (0.05: 5 %)."""
    more_memory: float | None = None
    """Relative growth of the peak from which on it is refused."""
    wrong: bool = False
    """Refuse gradients that are scaled, wrong or missing, and those that were not compared."""
    error: bool = False
    """Refuse trials that ended otherwise than `ok`, and points that were not run."""
    allow_unchecked: bool = False
    """Let gradients pass that were not compared."""

    def __bool__(self) -> bool:
        limits = (self.slower, self.more_memory)
        return self.wrong or self.error or any(limit is not None for limit in limits)


@dataclass(frozen=True)
class Objection:
    """Why something must not pass."""

    gate: str
    """The option that asks for it: `--fail-if-slower 5%`."""
    place: str
    """The axes of the point, `seq_len=512 sp=2`; empty where it is about all of them."""
    reason: str

    @property
    def line(self) -> str:
        """Place and reason."""
        return f"{self.place}: {self.reason}" if self.place else self.reason


def objections(comparison: Comparison, gates: Gates) -> list[Objection]:
    """Why the candidate of `comparison` must not pass; empty when nothing speaks against it.

    Slower: by at least the limit, and the interval excludes that it is not; or it has no number
    where the baseline has one; or its times allow no verdict. Memory: its peak is larger by at
    least the limit, or is unknown where the baseline's is known. A gradient is refused whatever
    the baseline's is. A gate that had nothing to judge at any point is an objection.
    """
    name = label(comparison.candidate)
    paired = [_axes(point) for point in comparison.points if point.verdict != NOT_PAIRED]
    found = [
        one
        for point in comparison.points
        for one in _objections(
            point, gates, name, point.verdict == NOT_PAIRED and _axes(point) in paired
        )
    ]
    sides = [(point.baseline, point.candidate) for point in comparison.points]
    if gates.slower is not None and not any(left.has_number for left, _ in sides):
        reason = "the baseline has no number at any point"
        found.append(Objection(_limit("slower", gates.slower), "", reason))
    if gates.more_memory is not None and not any(left.peak_memory_bytes for left, _ in sides):
        reason = "the baseline has no peak memory at any point"
        found.append(Objection(_limit("more-memory", gates.more_memory), "", reason))
    for gate in _asked(gates):
        if not any(right.gradients.total for _, right in sides):
            found.append(Objection(gate, "", f"no trial of {name} was run"))
    return found


def objections_to(
    frame: pd.DataFrame, gates: Gates, names: Mapping[str, str] = GATE_NAMES
) -> list[Objection]:
    """What speaks against the trials themselves, a line per configuration: gradients and errors.

    `names` says what the gates are called: `wrong` and `error`.
    """
    found = []
    wrong, error = names["wrong"], names["error"]
    for place, trials in configurations(frame):
        gradients = gradients_of(trials)
        if gates.wrong:
            found += [
                Objection(wrong, place, why) for why in _wrong(gradients, gates.allow_unchecked)
            ]
        if gates.error:
            counts = trials.status.value_counts().to_dict()
            what = "; ".join(dict.fromkeys(trials.failure.dropna()))
            found += [Objection(error, place, why) for why in _errors(counts, what)]
    if frame.empty or (frame.status == Status.UNSUPPORTED.value).all():
        asked = [wrong] * gates.wrong + [error] * gates.error
        found += [Objection(gate, "", "no trial was run") for gate in asked]
    return found


def configurations(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """`environment=torch-2.13 loss=all_gather zero=1 sp=2` and the trials of that configuration."""
    names = [*NAMED, *(name for name in row_axes(frame) if name not in NAMED)]
    for _, trials in frame.groupby(RESULT, sort=False):
        first = trials.iloc[0]
        yield " ".join(f"{name}={text_of(first[name])}" for name in names), trials


def place_of(point: Point) -> str:
    """`seq_len=512 sp=2`; empty where the comparison has one point."""
    return " ".join(f"{key}={text_of(value)}" for key, value in point.axes.items())


def _asked(gates: Gates) -> Iterator[str]:
    """The gates that judge the candidate alone."""
    if gates.wrong:
        yield WRONG
    if gates.error:
        yield ERROR


def _objections(
    point: Point, gates: Gates, candidate: str, lonely: bool = False
) -> Iterator[Objection]:
    """What speaks against the candidate at a point.

    `lonely`: it is a result without partner beside one that has one, and says nothing about time.
    """
    place = place_of(point)

    def of(gate: str, reasons: Iterable[str]) -> Iterator[Objection]:
        return (Objection(gate, place, f"{candidate} {reason}") for reason in reasons)

    if gates.slower is not None and not lonely:
        yield from of(_limit("slower", gates.slower), _slower(point, gates.slower))
    if gates.more_memory is not None:
        yield from of(_limit("more-memory", gates.more_memory), _memory(point, gates.more_memory))
    if gates.wrong:
        why = _wrong(point.candidate.gradients, gates.allow_unchecked)
        yield from of(WRONG, (f"has a {one}" for one in why))
        if point.candidate.config_hash is None and not gates.allow_unchecked:
            yield from of(WRONG, ["was not run, so its gradient was not compared"])
    if gates.error:
        if point.candidate.config_hash is None:
            yield from of(ERROR, ["was not run"])
        ends = _errors(point.candidate.statuses, point.candidate.failure)
        yield from of(ERROR, (f"ended as {one}" for one in ends))


def _slower(point: Point, limit: float) -> Iterator[str]:
    ratio = point.ratio
    if point.verdict == NO_NUMBER:
        if point.baseline.has_number:
            yield f"has no number ({_ends(point.candidate) or 'not run'})"
    elif point.verdict == TOO_FEW:
        yield f"has too few rounds for a verdict ({ratio.rounds} in common)"
    elif point.verdict == NOT_PAIRED:
        yield f"is not paired with the baseline: {point.apart}"
    elif point.verdict == NOT_VALID:
        yield "or the baseline shared GPUs, so the times allow no verdict"
    elif ratio.value and ratio.interval and verdict(ratio.value, ratio.interval, limit) == SLOWER:
        low, high = 1 / ratio.interval.high - 1, 1 / ratio.interval.low - 1
        yield (f"is slower by {1 / ratio.value - 1:.1%} (95 % interval {low:.1%} to {high:.1%})")


def _memory(point: Point, limit: float) -> Iterator[str]:
    before, after = point.baseline.peak_memory_bytes, point.candidate.peak_memory_bytes
    if not before:
        return
    if after is None:
        yield f"has no peak memory ({_ends(point.candidate) or 'not run'})"
    elif after >= before * (1 + limit):
        yield (
            f"needs {after / before - 1:.1%} more memory "
            f"({after / 2**20:,.1f} MiB instead of {before / 2**20:,.1f})"
        )


def _wrong(gradients: Gradients, allow_unchecked: bool) -> Iterator[str]:
    """`gradient that is ×2 in 3 of 3 trials, judged by the exact float64 reference`."""
    total = gradients.total
    for fault, count in gradients.wrong.items():
        judged = f", judged by {gradients.reference}" if gradients.reference else ""
        yield f"gradient that is {fault} in {count} of {total} trials{judged}"
    if allow_unchecked:
        return
    for why, count in gradients.unchecked.items():
        yield f"gradient that was not compared in {count} of {total} trials ({why})"


def _errors(statuses: Mapping[str, int], failure: str) -> Iterator[str]:
    """`error in 3 of 3 trials (IndexError in backward, ranks 2,3)`."""
    total = sum(statuses.values())
    failed = {status: count for status, count in statuses.items() if status not in PASSING}
    if failed:
        ways = ", ".join(f"{status} in {count} of {total}" for status, count in failed.items())
        yield f"{ways} trials ({failure})"


def _ends(side: Side) -> str:
    return ", ".join(f"{status} {count}" for status, count in side.statuses.items())


def _limit(what: str, limit: float) -> str:
    return f"--fail-if-{what} {100 * limit:g}%"


def _axes(point: Point) -> dict[str, Any]:
    """Where a point is, whichever of its results it is of."""
    return {name: value for name, value in point.axes.items() if name != "variant"}
