"""The frontier of sequence lengths, and memory by component: predicted beside measured."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures.style import blank, finish, grid, styled
from analysis.wording import span

MIB = 2**20
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's palette, in the order of the frontier's lines."""
COMPONENT_COLOURS = {
    "weights": "#332288",
    "gradients": "#88CCEE",
    "optimizer": "#44AA99",
    "buffers": "#BBBBBB",
    "activations": "#DDCC77",
    "logits": "#CC6677",
}
"""Paul Tol's muted scheme."""
MAX_LINES, MAX_BARS = len(COLOURS), 16


@styled
def frontier(searches: pd.DataFrame) -> Figure:
    """The longest sequence [tokens] over sp; `searches` is `analysis.capacity.searches`.

    A bar spans from the longest that trained to the shortest that did not; the crosses are
    the prediction.
    """
    known = searches[searches.longest.fillna(0) > 0] if len(searches) else searches
    if known.empty:
        return blank("No sequence trained", "No search of scenario=capacity found a length.")
    lines = list(dict.fromkeys(known.line))
    figure, [axes] = grid(1, [3.0])
    for name, colour in zip(lines[:MAX_LINES], COLOURS, strict=False):
        _line(axes, known[known.line == name], colour)
    ticks = sorted(set(known.sp))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("sp: ranks that share a sequence")
    axes.set_ylabel("longest sequence [tokens]")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(bottom=0)
    legend = [
        Line2D([], [], color=colour, marker="o", label=name)
        for name, colour in zip(lines[:MAX_LINES], COLOURS, strict=False)
    ]
    legend.append(Line2D([], [], color="black", linestyle=":", marker="x", label="predicted"))
    best = known.loc[known.longest.idxmax()]
    title = f"The longest sequence that trains is {best.longest:,.0f} tokens, at sp={best.sp}"
    spoken = [
        f"{row.line}, sp={row.sp}: {row.longest:,.0f} tokens" for row in known.head(24).itertuples()
    ]
    return finish(figure, title, "; ".join(spoken), _notes(known, len(lines)), legend)


@styled
def memory_components(attempts: pd.DataFrame) -> Figure:
    """Predicted peak by component [MiB], and the measured one beside it.

    `attempts` is `analysis.capacity.attempts`.
    """
    if attempts.empty:
        return blank("No peak memory", "No attempt of a search for the longest sequence trained.")
    shown = attempts.sort_values(["line", "sp", "seq_len"], kind="stable").head(MAX_BARS)
    figure, [axes] = grid(1, [3.0])
    places = list(range(len(shown)))
    bottom = pd.Series(0.0, index=shown.index)
    for name, colour in COMPONENT_COLOURS.items():
        height = shown[name] / MIB
        axes.bar(places, height, 0.8, bottom=bottom, color=colour)
        bottom += height
    axes.plot(
        places, shown.measured / MIB, "k_", markersize=16, markeredgewidth=2.0, linestyle="none"
    )
    lines = list(dict.fromkeys(shown.line))
    marks = {line: f"\n({chr(97 + index)})" for index, line in enumerate(lines) if len(lines) > 1}
    names = [f"sp={row.sp}\n{row.seq_len:,}{marks.get(row.line, '')}" for row in shown.itertuples()]
    axes.set_xticks(places, names, fontsize=7)
    axes.set_ylabel("peak memory per rank [MiB]")
    predicted = shown[list(COMPONENT_COLOURS)].sum(axis=1)
    ratio = shown.measured / predicted
    legend: list[Patch | Line2D] = [
        Patch(color=colour, label=name) for name, colour in COMPONENT_COLOURS.items()
    ]
    legend.append(
        Line2D([], [], color="black", marker="_", linestyle="none", label="measured peak")
    )
    notes = ["Bars: what theory expects at the moment of a step at which memory is highest."]
    notes += [f"{mark.strip()} {line}." for line, mark in marks.items()]
    if len(attempts) > len(shown):
        notes.append(f"{len(shown)} of {len(attempts)} attempts are shown.")
    spoken = [
        f"{f'{row.line}, ' if marks else ''}sp={row.sp}, {row.seq_len:,} tokens: "
        f"predicted {total / MIB:,.0f} MiB, "
        f"measured {row.measured / MIB:,.0f} MiB"
        for row, total in zip(shown.itertuples(), predicted, strict=True)
    ]
    title = f"The measured peak is {span(ratio, '.2f')} times the predicted one"
    return finish(figure, title, "; ".join(spoken), notes, legend)


def _line(axes: Axes, part: pd.DataFrame, colour: str) -> None:
    """One line of the frontier: the median over rounds (the lower one), and the bracket."""
    # of an even number of rounds the lower of the two middle ones: a length that was tried
    columns = part[["longest", "shortest_failed", "predicted"]].astype(float)
    by_sp = columns.groupby(part.sp).quantile(0.5, interpolation="lower")
    above = (by_sp.shortest_failed.fillna(by_sp.longest) - by_sp.longest).astype(float)
    axes.errorbar(
        by_sp.index,
        by_sp.longest.astype(float),
        yerr=[[0.0] * len(by_sp), above.tolist()],
        color=colour,
        marker="o",
        capsize=3,
    )
    if by_sp.predicted.notna().any():
        predicted = by_sp.predicted.astype(float)
        axes.plot(by_sp.index, predicted, ":x", color="black", markersize=9, zorder=3)


def _notes(known: pd.DataFrame, lines: int) -> list[str]:
    limits = sorted(set(known.memory_limit.dropna()))
    notes = ["Bars end at the shortest sequence that ran out of memory."]
    if limits:
        sizes = ", ".join(f"{limit / MIB:,.0f} MiB" for limit in limits)
        notes.append(f"Memory per rank is limited to {sizes}.")
    if known.shortest_failed.isna().any():
        notes.append("Where no bar is drawn the search ended before memory did.")
    if lines > MAX_LINES:
        notes.append(f"{MAX_LINES} of {lines} lines are shown.")
    return notes
