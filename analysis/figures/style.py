"""How all figures look: colours with one meaning each, the frame around the panels, hatching.

Colours: Okabe and Ito's palette (jfly.uni-koeln.de/color) for loss aggregations, Paul Tol's
muted scheme (personal.sron.nl/~pault) for the phases of a step. Both are safe for the
colour-blind; line style and marker repeat what tells environments apart.
"""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle

from bench.printable import printable

LOSS_COLOURS = {
    "all_gather": "#0072B2",
    "weighted_all_reduce": "#E69F00",
    "functional_all_reduce": "#009E73",
    "functional_collective": "#56B4E9",
    "local": "#CC79A7",
    "local_mean": "#D55E00",
}
OTHER_LOSSES = ("#117733", "#882255", "#999933", "#661100")
"""For aggregations that are not listed above, in the order of their names."""

PHASE_COLOURS = {
    "forward": "#DDCC77",
    "aggregate": "#882255",
    "backward": "#332288",
    "optimizer": "#BBBBBB",
}
VERDICT_COLOURS = {
    "match": ("#D6EAF8", "black"),
    "scaled": ("#F2C14E", "black"),
    "wrong": ("#8E2323", "white"),
    "none": ("#555555", "white"),
}
"""Background and text of each gradient verdict."""
FAILED = ("white", "black")
STRUCK = "#8E2323"
"""Of the line through what has a wrong gradient."""

HATCH = "////"
"""Over whatever is emulated or not valid as a timing."""
FAILED_HATCH = "xx"

LINES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P")

WIDTH = 6.4
"""Of every figure [inches]: its text is readable on a telephone and in a column of a page."""
MAX_NOTES = 9
MAX_SERIES = 16

_RC: Any = {
    "text.parse_math": False,  # names in records are text, dollars included
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#DDDDDD",
    "hatch.linewidth": 0.4,
    "hatch.color": "#C8C8C8",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "text.color": "black",
    "axes.labelcolor": "black",
    "xtick.color": "black",
    "ytick.color": "black",
    "axes.edgecolor": "#444444",
}

Colour = str | tuple[float, float, float, float]
Draw = TypeVar("Draw", bound=Callable[..., Figure])


def styled(draw: Draw) -> Draw:
    """Draw under spbench's own settings, whatever the user's are."""

    @functools.wraps(draw)
    def wrapped(*arguments: Any, **options: Any) -> Figure:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_RC)
            return draw(*arguments, **options)

    return wrapped  # type: ignore[return-value]


class Grid(NamedTuple):
    """A figure and its panels, one after the other."""

    figure: Figure
    panels: list[Axes]


def grid(count: int, heights: Sequence[float], columns: int = 2, sharey: bool = False) -> Grid:
    """`count` panels in `columns` columns; `heights` [inches] of the rows."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, sum(heights)))
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharey=sharey,
        gridspec_kw={"height_ratios": list(heights)[:rows]},
    )
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.remove()
    return Grid(figure, flat[:count])


def finish(
    figure: Figure,
    title: str,
    alt: str = "",
    notes: Iterable[str] = (),
    legend: Sequence[Artist] = (),
) -> Figure:
    """Put the message above the panels, legend and notes below; `alt` follows the message.

    The alternative text is the figure's label: `alt_text` gives it.
    """
    shown = limited(list(dict.fromkeys(notes)), MAX_NOTES, "notes")
    message = textwrap.fill(printable(title).replace(" %", "\N{NO-BREAK SPACE}%"), 70)
    below = "\n".join(textwrap.fill(printable(note), 118) for note in shown)
    columns = _legend_columns(max((len(str(one.get_label())) for one in legend), default=0))
    top = 0.1 + 0.2 * (message.count("\n") + 1)
    legend_inches = 0.19 * -(-len(legend) // columns) + 0.1 if legend else 0.0
    notes_inches = 0.15 * (below.count("\n") + 1) + 0.1 if below else 0.0
    height = figure.get_figheight() + top + legend_inches + notes_inches
    figure.set_size_inches(WIDTH, height)
    bottom = (legend_inches + notes_inches) / height
    figure.set_layout_engine(
        ConstrainedLayoutEngine(rect=(0, bottom, 1, 1 - bottom - top / height))
    )
    figure.text(0.01, 1 - 0.06 / height, message, va="top", fontsize=11, fontweight="bold")
    if below:
        figure.text(0.01, 0.04 / height, below, va="bottom", fontsize=7.5, color="#333333")
    if legend:
        figure.legend(
            handles=list(legend),
            loc="lower left",
            bbox_to_anchor=(0.0, notes_inches / height),
            ncols=columns,
            frameon=False,
            fontsize=8,
            handlelength=2.6,
            borderaxespad=0.2,
        )
    figure.set_label(printable(". ".join([title.rstrip("."), *filter(None, [alt, *shown])])))
    return figure


def _legend_columns(longest: int) -> int:
    """As many as fit side by side where the longest label has `longest` characters; measured."""
    room = {16: 4, 24: 3, 42: 2}
    return next((columns for most, columns in room.items() if longest <= most), 1)


def alt_text(figure: Figure) -> str:
    """What a figure shows, in words, for those who cannot see it."""
    return str(figure.get_label())


def blank(title: str, why: str) -> Figure:
    """In place of a figure for which there is no data: says so."""
    figure, [axes] = grid(1, [1.2])
    axes.set_axis_off()
    text = textwrap.fill(printable(why), 76)
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=10, color="#444444")
    return finish(figure, title, why)


def colour_of(loss: str, losses: Iterable[str]) -> str:
    """The colour of a loss aggregation; `losses` are all that the figure's frame holds."""
    if loss in LOSS_COLOURS:
        return LOSS_COLOURS[loss]
    others = sorted(set(losses) - set(LOSS_COLOURS))
    return OTHER_LOSSES[others.index(loss) % len(OTHER_LOSSES)]


def hatched(axes: Axes) -> None:
    """Hatch a panel's background: its timings are emulated or not valid."""
    axes.patch.set(hatch=HATCH, edgecolor="#C8C8C8", linewidth=0)


def phase_patches() -> list[Patch]:
    """The legend of the phases."""
    return [Patch(color=colour, label=name) for name, colour in PHASE_COLOURS.items()]


def nothing_here(axes: Axes, why: str) -> None:
    """Say in a panel that it has no data."""
    text = textwrap.fill(printable(why), 36)
    axes.text(
        0.5,
        0.5,
        text,
        ha="center",
        va="center",
        transform=axes.transAxes,
        color="#444444",
        bbox={"facecolor": "white", "edgecolor": "none"},
    )
    axes.set_yticks([])


def tile(ax: Axes, x: int, y: int, colour: Colour, hatch: str) -> None:
    """A cell of a matrix, in column `x` and row `y`."""
    box = Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, facecolor=colour, hatch=hatch)
    box.set(edgecolor="#C0C0C0", linewidth=0.6)
    ax.add_patch(box)


def on_tile(colour: Colour) -> Any:
    """Options of a text in the middle of a tile: readable over its hatching."""
    box = {"facecolor": colour, "edgecolor": "none", "pad": 1}
    return {"ha": "center", "va": "center", "bbox": box, "linespacing": 1.15}


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """`text` in lines of at most `width` characters; of each of its own lines, `lines` stay."""
    return "\n".join(
        textwrap.fill(printable(one), max(width, 8), max_lines=lines, placeholder="…")
        for one in text.split("\n")
    )


def strike(ax: Axes, x: Any, y: Any) -> None:
    """Strike points through: what was measured there has a wrong gradient."""
    slash = (2, 2, -45)  # matplotlib's marker of two spokes, turned
    ax.plot(x, y, linestyle="none", marker=slash, markersize=13, color=STRUCK, markeredgewidth=1.4)


def sequence_axis(axes: Axes, lengths: Sequence[int]) -> None:
    """The x axis of figures over the sequence length [tokens], with the measured values."""
    ticks = sorted(set(lengths))
    if not ticks:
        axes.set_xticks([])
        return
    axes.set_xscale("log", base=2)
    axes.set_xlim(ticks[0] / 1.4, ticks[-1] * 1.4)
    every = -(-len(ticks) // 6)
    axes.set_xticks(ticks[::every], [f"{tick:,}" for tick in ticks[::every]])
    axes.minorticks_off()
    axes.set_xlabel("sequence length [tokens]")


def quantity(value: float) -> str:
    """A number with at least three digits."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def limited(texts: list[str], most: int, noun: str) -> list[str]:
    """At most `most` of `texts`; the last then says how many `noun` are left out."""
    if len(texts) <= most:
        return texts
    return [*texts[: most - 1], f"… and {len(texts) - most + 1:,} more {noun}"]
