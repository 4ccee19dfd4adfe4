"""What the workaround costs beside upgrading: a heat map over sequence length and split."""

from __future__ import annotations

import math

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.compare import compare
from analysis.comparison import (
    NO_NUMBER,
    NOT_PAIRED,
    NOT_VALID,
    Comparison,
    Point,
    Selector,
    Side,
)
from analysis.figures.style import (
    FAILED_HATCH,
    HATCH,
    STRUCK,
    Colour,
    blank,
    finish,
    grid,
    on_tile,
    styled,
    tile,
    wrapped,
)
from analysis.gradients import WRONG
from analysis.precision_words import difference, hidden
from analysis.reading import AnalysisError
from analysis.statistics import FASTER, FEWEST, SLOWER, TOO_FEW

COLOURS = "PuOr"
"""Diverging and safe for the colour-blind: purple, the candidate is faster; orange, slower."""
MAX_ROWS, MAX_COLUMNS = 16, 8


@styled
def cost(frame: pd.DataFrame, baseline: Selector, candidate: Selector) -> Figure:
    """Candidate's throughput over baseline's, sequence length by split.

    Each cell: the ratio with its interval, or why there is none. `baseline` and `candidate` are
    `analysis.compare.compare`'s.
    """
    sides = f"{named(candidate)} over {named(baseline)}"
    try:
        found = compare(frame, baseline, candidate)
    except AnalysisError as error:
        return blank(f"No comparison of {sides}", str(error))
    if not found.points:
        return blank(f"No comparison of {sides}", "The sides share no point.")
    measured = [point for point in found.points if _measured(point)]
    if measured and not any(p.ratio.tells for p in measured) and len(measured) == len(found.points):
        return blank(f"Too few rounds for ratios of {sides}", _wanting(measured, found.smallest))
    lengths = sorted(set(frame.seq_len.astype(int)))
    cells = {(_row(point), _column(point, lengths)): point for point in found.points}
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = sorted({column for _, column in cells})
    left = []
    if len(rows) > MAX_ROWS or len(columns) > MAX_COLUMNS:
        left = [
            f"{min(len(rows), MAX_ROWS)} of {len(rows)} splits and "
            f"{min(len(columns), MAX_COLUMNS)} of {len(columns)} sequence lengths are shown."
        ]
    rows, columns = rows[:MAX_ROWS], columns[-MAX_COLUMNS:]
    figure, [ax] = grid(1, [0.6 + 0.64 * len(rows)])
    reach = _reach(found)
    shown = {place: p for place, p in cells.items() if place[0] in rows and place[1] in columns}
    for (row, column), point in shown.items():
        _cell(ax, columns.index(column), rows.index(row), point, reach, len(columns))
    _axes(ax, rows, columns)
    notes = [
        f"Tokens/s of {sides}, paired by round: above 1 (purple) {named(candidate)} is faster, "
        "below (orange) slower; pale: no difference seen; white: too few rounds. Crossed: no "
        "number.",
        *_caveats(list(shown.values())),
        *left,
    ]
    spoken = [
        f"{row} at {column:,} tokens: {', '.join(text(point))}"
        for (row, column), point in list(shown.items())[:40]
    ]
    return finish(figure, _message(found), "; ".join(spoken), notes)


def named(selector: Selector) -> str:
    """A side in words: `torch-2.13 all_gather`."""
    return " ".join(map(str, selector.values()))


def text(point: Point) -> list[str]:
    """What a cell says: ratio, interval and verdict, or why there is no number."""
    if point.apart and point.verdict == NOT_PAIRED:
        return [point.verdict, point.apart]
    if point.ratio.value is None or point.verdict in (NO_NUMBER, NOT_VALID):
        sides = (("baseline", point.baseline), ("candidate", point.candidate))
        gone = [f"{name}: {_status(side)}" for name, side in sides if not side.has_number]
        return [point.verdict, *gone]
    if not point.ratio.tells or point.ratio.interval is None:
        lines = [TOO_FEW, f"{point.ratio.rounds} in common"]
        if point.ratio.hidden is not None:
            lines = [TOO_FEW, f"within {difference(point.ratio.hidden)}"]
    else:
        low, high = point.ratio.interval.low, point.ratio.interval.high
        lines = [f"{point.ratio.value:.2f}", f"{low:.2f} … {high:.2f}", point.verdict]
    gradients = [side.gradient_scale_label for side in (point.baseline, point.candidate)]
    if any(gradients):
        before, after = (label or "unknown" for label in gradients)
        lines.append(f"gradient {before} → {after}")
    return lines


def _measured(point: Point) -> bool:
    """Whether both sides have valid times in some common round."""
    return point.ratio.value is not None and point.verdict not in (NO_NUMBER, NOT_VALID)


def _told(point: Point) -> bool:
    """Whether the rounds are enough to draw the ratio."""
    return _measured(point) and point.ratio.tells


def _wanting(points: list[Point], smallest: float) -> str:
    """What the rounds of points that tell nothing leave possible."""
    ratios = [point.ratio for point in points if point.ratio.interval]
    if not ratios:
        most = max(point.ratio.rounds for point in points)
        return f"{most} in common, {FEWEST} are needed for a verdict."
    words = hidden(ratios, smallest)
    return f"{words[:1].upper()}{words[1:]}."


def _status(side: Side) -> str:
    if side.config_hash is None:
        return "not run"
    return side.failure or ", ".join(side.statuses) or "no time"


def _row(point: Point) -> str:
    told = {"seq_len", *(["world"] if {"sp", "dp"} <= point.axes.keys() else [])}
    return " ".join(f"{k}={v}" for k, v in point.axes.items() if k not in told)


def _column(point: Point, lengths: list[int]) -> int:
    """The sequence length, which is no axis of the points where it does not vary."""
    return int(point.axes.get("seq_len", lengths[0]))


def _reach(found: Comparison) -> float:
    """Logarithm of the ratio with full colour: the largest, at least 1.1, so that noise is pale."""
    told = [point.ratio.value for point in found.points if _told(point)]
    logs = [abs(math.log(value)) for value in told if value]
    return max([math.log(1.1), *logs])


def _cell(ax: Axes, x: int, y: int, point: Point, reach: float, columns: int) -> None:
    value = point.ratio.value
    sides = (point.baseline, point.candidate)
    back: Colour
    if value is None or not _measured(point):
        back, hatch = "white", FAILED_HATCH
    elif not _told(point):
        back, hatch = "white", ""
    else:
        # The ends of the map are too dark for black text.
        seen = point.verdict == SLOWER or (point.verdict == FASTER and not _wrong(point))
        strength = 0.3 if seen else 0.08
        back = matplotlib.colormaps[COLOURS](0.5 + strength * math.log(value) / reach)
        unusual = any(side.emulated or not side.timings_valid for side in sides)
        hatch = HATCH if unusual else ""
    tile(ax, x, y, back, hatch)
    if _wrong(point):
        ax.plot([x + 0.04, x + 0.96], [y + 0.92, y + 0.08], color=STRUCK, linewidth=1.4)
    lines = wrapped("\n".join(text(point)), 84 // columns + 2, lines=2)
    ax.text(x + 0.5, y + 0.5, lines, fontsize=7.5 if columns < 5 else 6.2, **on_tile(back))


def _axes(ax: Axes, rows: list[str], columns: list[int]) -> None:
    ax.set_xlim(0, len(columns))
    ax.set_ylim(len(rows), 0)
    ax.set_xticks([x + 0.5 for x in range(len(columns))], [f"{one:,}" for one in columns])
    labels = [wrapped(row, 16) for row in rows]
    ax.set_yticks([y + 0.5 for y in range(len(rows))], labels)
    ax.set_xlabel("sequence length [tokens]")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _message(found: Comparison) -> str:
    """The range of the ratios, where a difference was seen, and how many points have none."""
    sides = f"{named(found.candidate)} against {named(found.baseline)}"
    verdicts = [_shown_verdict(point) for point in found.points]
    numbers = [point.ratio.value for point in found.points if _told(point) and point.ratio.value]
    if not any(map(_measured, found.points)):
        return f"{sides}: no point has a number on both sides"
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(sorted(verdicts))]
    if not numbers:
        return f"{sides}: too few rounds for ratios ({', '.join(counts)})"
    low, high = f"{min(numbers):.2f}", f"{max(numbers):.2f}"
    times = low if low == high else f"{low} to {high}"
    return f"{sides}: {times} times the throughput ({', '.join(counts)})"


def _shown_verdict(point: Point) -> str:
    if _measured(point) and not _told(point):
        return TOO_FEW
    wrong = point.verdict == FASTER and _wrong(point)
    return f"{point.verdict} with a wrong gradient" if wrong else point.verdict


def _wrong(point: Point) -> bool:
    """Whether the candidate's gradient is wrong, so that its speed is no merit."""
    return point.candidate.gradients.kind == WRONG


def _caveats(points: list[Point]) -> list[str]:
    """Notes on emulation and on timings that are not valid."""
    sides = [side for point in points for side in (point.baseline, point.candidate)]
    notes = []
    if any(map(_wrong, points)):
        notes.append("Struck through: the candidate's gradient is wrong.")
    if any(side.emulated for side in sides):
        notes.append("Hatched: timings are emulated, torch's NCCL code path on gloo.")
    if not all(side.timings_valid for side in sides):
        notes.append("Timings are not valid where ranks shared a GPU.")
    return notes
