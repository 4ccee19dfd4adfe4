"""A comparison as tables of text, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from analysis.comparison import Comparison, Decomposition, Point, Side
from analysis.comparison_export import as_csv, as_json
from analysis.gradients import WRONG
from analysis.selection import text_of
from analysis.sentences import label, sentences
from analysis.sketch_words import words as sketch_words
from analysis.statistics import FASTER, SLOWER, Ratio
from analysis.table import NOT_COMPARED
from analysis.wording import marked
from bench.console import Console
from bench.record import PHASES
from bench.verdicts import SIGN, STYLE

STYLES = {FASTER: "green", SLOWER: "red"}
"""How a verdict is coloured."""


class Grid(NamedTuple):
    """A table of text. Columns right of the axes hold numbers, aligned to the right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[str]
    """Columns that hold words."""


def grids(comparison: Comparison) -> list[Grid]:
    """Speed; then phases, memory and gradients; then the decomposition, where there is one."""
    found = [_speed(comparison), _details(comparison)]
    parts = [comparison.decomposition, *(point.decomposition for point in comparison.points)]
    split = next((one for one in parts if one is not None), None)
    if split is not None:
        found.append(_parts(comparison, split))
    return found


def show(comparisons: Sequence[Comparison], to: str) -> None:
    """Print them as `table`, `markdown`, `csv` or `json`."""
    if to == "table":
        console = Console()
        for index, comparison in enumerate(comparisons):
            console.print("\n" if index else "", end="")
            render(comparison, console)
    elif to == "markdown":
        print("\n".join(map(markdown, comparisons)), end="")
    else:
        print({"csv": as_csv, "json": as_json}[to](comparisons).rstrip())


def render(comparison: Comparison, console: Console) -> None:
    """Print the tables and, below them, the sentences."""
    console.print(title(comparison), style="bold", highlight=False, markup=False)
    for grid in grids(comparison):
        console.print(grid.title, style="dim", highlight=False, markup=False)
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name, cells in zip(grid.header, zip(*grid.rows, strict=True), strict=True):
            words = name in grid.left
            # Numbers stay whole where the terminal is narrow; words may take several lines.
            width = None if words else max(map(len, cells))
            table.add_column(name, justify="left" if words else "right", min_width=width)
        for row in grid.rows:
            table.add_row(
                *(Text(text, STYLE if SIGN in text else STYLES.get(text, "")) for text in row)
            )
        console.print(table)
        console.print()
    for sentence in sentences(comparison):
        console.print(sentence, highlight=False, markup=False)


def markdown(comparison: Comparison) -> str:
    """The same as Markdown."""
    parts = [f"## {title(comparison)}"]
    for grid in grids(comparison):
        rules = ["---" if name in grid.left else "---:" for name in grid.header]
        lines = [_line(grid.header), _line(rules), *map(_line, grid.rows)]
        parts.append(f"{grid.title}:\n\n" + "\n".join(lines))
    parts.append("\n".join(f"- {sentence}" for sentence in sentences(comparison)))
    return "\n\n".join(parts) + "\n"


def title(comparison: Comparison) -> str:
    """`torch-2.13 with all_gather against torch-2.2 with weighted_all_reduce`."""
    return f"{label(comparison.candidate)} against {label(comparison.baseline)}"


def _speed(comparison: Comparison) -> Grid:
    estimated = any(point.ratio.correlation for point in comparison.points)
    own = any(_own(point) for point in comparison.points)
    numbers = [
        "baseline",
        "candidate",
        "ratio",
        "95 %",
        "rounds",
        *(["corr."] if estimated else []),
    ]
    rows = [
        [
            *_place(comparison, point),
            *_rates(point),
            *_ratio(point.ratio),
            f"{point.ratio.rounds}",
            *([_correlation(point.ratio)] if estimated else []),
            _verdict(point),
        ]
        for point in comparison.points
    ]
    percent = f"{100 * comparison.smallest:g} %"
    return Grid(
        "tokens/s over the rounds that both have (geometric mean); ratio = candidate / baseline, "
        "with its 95 % interval, above 1: the candidate is faster; "
        f"differences below {percent} do not matter"
        + ("; in brackets: median of a side's own rounds, where none are common" if own else "")
        + (f"; {SIGN}: with a wrong gradient" if any(SIGN in row[-1] for row in rows) else "")
        + ("; corr.: of neighbouring rounds, * significant: a wider interval" if estimated else ""),
        [*comparison.axes, *numbers, "verdict"],
        rows,
        [*comparison.axes, "verdict"],
    )


def _verdict(point: Point) -> str:
    """`faster`; `faster ✗` where the candidate's gradient is wrong."""
    wrong = point.candidate.gradients.kind == WRONG and point.ratio.value is not None
    return f"{point.verdict} {SIGN}" if wrong else point.verdict


def _details(comparison: Comparison) -> Grid:
    names = ["step", *PHASES]
    sketched = any(point.sketch is not None for point in comparison.points)
    words = ["gradients", *(["by sketch"] if sketched else [])]
    rows = [
        [
            *_place(comparison, point),
            *(f"{1e3 * point.phases_s[n]:+,.2f}" if n in point.phases_s else "" for n in names),
            "" if point.memory_ratio is None else f"{point.memory_ratio:.3f}",
            f"{_gradient(point.baseline)} | {_gradient(point.candidate)}",
            *([sketch_words(point.sketch)] if sketched else []),
        ]
        for point in comparison.points
    ]
    return Grid(
        "candidate minus baseline [ms], median over rounds; ratio of peak memory; "
        "gradient of each (×2: twice what it should be)"
        + ("; by sketch: the candidate's gradient beside the baseline's" if sketched else ""),
        [*comparison.axes, *names, "memory", *words],
        rows,
        [*comparison.axes, *words],
    )


def _parts(comparison: Comparison, split: Decomposition) -> Grid:
    """Total = first × second, point by point and over all of them; `split` names the effects."""
    rows = [
        [*_place(comparison, point), *_factors(point.decomposition)]
        for point in comparison.points
        if point.decomposition is not None
    ]
    overall = comparison.decomposition
    if overall is not None and overall.counted.points > 1:
        rows.append(["all", *[""] * (len(comparison.axes) - 1), *_factors(overall)])
    first, second = split.first, split.second
    heads = [f"{effect.before} → {effect.after}" for effect in (first, second)]
    held = [" ".join(f"{k}={v}" for k, v in effect.held.items()) for effect in (first, second)]
    return Grid(
        f"total = effect of {first.axis} (with {held[0]}) × effect of {second.axis} "
        f"(with {held[1]}), over the rounds that all three have, where they are enough",
        [*comparison.axes, "total", *heads],
        rows,
        comparison.axes,
    )


def _factors(parts: Decomposition | None) -> list[str]:
    if parts is None:
        return []
    cells = map(_ratio, (parts.total, parts.first.ratio, parts.second.ratio))
    return [f"{value} ({interval})" if interval else value for value, interval in cells]


def _place(comparison: Comparison, point: Point) -> list[str]:
    values = [point.axes[name] for name in comparison.axes]
    return [f"{v:,}" if type(v) is int else text_of(v) for v in values]


def _rates(point: Point) -> list[str]:
    """Both sides' tokens/s, or what the trials ended as where there is no number."""
    means = point.paired_tokens_per_s or (None, None)
    return [_rate(*one) for one in zip((point.baseline, point.candidate), means, strict=True)]


def _rate(side: Side, paired: float | None) -> str:
    if side.tokens_per_s is None:
        ends = ", ".join(f"{status} {count}" for status, count in side.statuses.items())
        return ends or "not run"
    number = f"({side.tokens_per_s.value:,.0f})" if paired is None else f"{paired:,.0f}"
    return number + ("" if side.timings_valid else "!")


def _own(point: Point) -> bool:
    """Whether a side has a number, but none in a round that the other side has too."""
    sides = (point.baseline, point.candidate)
    return point.paired_tokens_per_s is None and any(side.has_number for side in sides)


def _correlation(ratio: Ratio) -> str:
    if ratio.correlation is None:
        return ""
    return f"{ratio.correlation.value:+.2f}{'*' if ratio.dependent else ''}"


def _ratio(ratio: Ratio) -> tuple[str, str]:
    interval = ratio.interval
    return (
        "" if ratio.value is None else f"{ratio.value:.3f}",
        "" if interval is None else f"{interval.low:.3f}–{interval.high:.3f}",
    )


def _gradient(side: Side) -> str:
    """The verdict; a scale stands for `scaled`."""
    scaled = side.gradient_verdict == "scaled"
    verdict = side.gradient_scale_label if scaled else side.gradient_verdict
    return marked(verdict, side.gradient_mode) or (NOT_COMPARED if side.gradient_reason else "–")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
