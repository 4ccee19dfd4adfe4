"""Where a step's time goes, and how it scatters over steps and rounds."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.points import (
    Look,
    caveats,
    chosen_panels,
    handle,
    interval_note,
    looks,
    points,
    suffixes,
    wrong_note,
)
from analysis.figures.style import (
    HATCH,
    PHASE_COLOURS,
    STRUCK,
    blank,
    finish,
    grid,
    hatched,
    nothing_here,
    phase_patches,
    quantity,
    styled,
    wrapped,
)
from analysis.identities import RESULT
from analysis.wording import span
from bench.verdicts import SIGN

MAX_BARS = 32
"""Of all panels together: more would not be read."""
MS = 1000


@styled
def phases(frame: pd.DataFrame) -> Figure:
    """Step time [ms] stacked by phase, a bar for each configuration, a panel for each split.

    Each phase is its own median over steps of the maximum over ranks, so that the phases of a
    step need not add up to the step, which the diamond shows.
    """
    table = points(frame)
    timed = table[table.step_s.notna()]
    if timed.empty:
        return blank("No step times: no trial has a time", "Every trial failed.")
    panels, left = chosen_panels(table)
    parts = {panel: table[table.panel == panel] for panel in panels}
    room = MAX_BARS // len(parts)
    for panel, part in parts.items():
        if len(part) > room:
            left.append(f"{room} bars a split are shown, those of the longest sequences.")
            parts[panel] = part.tail(room)  # the longest sequences
    figure, axes = grid(len(parts), [0.55 + 0.19 * len(part) for part in parts.values()], columns=1)
    for (panel, part), ax in zip(parts.items(), axes, strict=True):
        _bars(ax, part)
        ax.set_title(panel, loc="left")
    axes[-1].set_xlabel("step time [ms]")
    share = timed.aggregate_s / timed.step_s
    title = (
        f"The loss aggregation takes {span(100 * share, '.1f')} % of a step"
        if share.notna().any()
        else f"Steps take {span(timed.step_s * MS, '.1f')} ms"
    )
    spoken = [
        f"{row.series}, {row.panel}, {row.seq_len:,} tokens: {quantity(row.step_s * MS)} ms, "
        f"aggregate {quantity(row.aggregate_s * MS)} ms"
        for row in timed.head(16).itertuples()
    ]
    notes = [
        "Diamond: the step as a whole.",
        *wrong_note(timed),
        *interval_note(table),
        *left,
        *caveats(table),
    ]
    return finish(figure, title, "; ".join(spoken), notes, phase_patches())


def _bars(ax: Axes, part: pd.DataFrame) -> None:
    labels = [
        f"{row.seq_len:,} · {row.series}{f' {SIGN} {row.fault}' if row.fault else ''}"
        for row in part.itertuples()
    ]
    ax.set_yticks(range(len(part)), labels, fontsize=7.5)
    ax.set_ylim(len(part) - 0.4, -0.6)
    ax.grid(True, axis="x")
    ax.set_axisbelow(True)
    for y, row in enumerate(part.itertuples()):
        if row.step_s != row.step_s:
            text = wrapped(f" ✕ {row.failure}", 76, lines=1)
            ax.annotate(text, (0, y), xycoords=("axes fraction", "data"), va="center", fontsize=7)
            continue
        start = 0.0
        invalid = row.emulated or not row.timings_valid
        for name, colour in PHASE_COLOURS.items():
            value = getattr(row, f"{name}_s") * MS
            if value != value:
                continue
            ax.barh(
                y,
                value,
                left=start,
                height=0.72,
                color=colour,
                hatch=HATCH if invalid else None,
                edgecolor="#FFFFFF80",
                linewidth=0,
            )
            start += value
        step = row.step_s * MS
        if row.fault:
            ax.plot([0, step], [y, y], color=STRUCK, linewidth=1.4)
        spread = [[step - row.step_s_low * MS], [row.step_s_high * MS - step]]
        ax.errorbar(
            step,
            y,
            xerr=spread,
            color="black",
            marker="D",
            markersize=3,
            capsize=2,
            linewidth=0.9,
        )


@styled
def step_times(frame: pd.DataFrame, samples: pd.DataFrame) -> Figure:
    """Every measured step [ms] by round, a panel for each split and sequence length.

    `samples` is `analysis.frame.samples`'s frame. A step's time is the maximum over ranks.
    Drift shows as a slope over the rounds, an outlier as a point on its own.
    """
    table = points(frame)
    steps = _steps(frame, samples)
    if steps.empty:
        return blank("No step times: no trial has a time", "Every trial failed.")
    named = table.assign(panel=[f"{r.panel} seq_len={r.seq_len:,}" for r in table.itertuples()])
    panels, left = chosen_panels(named)
    shown = looks(table)
    steps = steps.merge(named[[*RESULT, "panel", "series"]], on=RESULT)
    figure, axes = grid(len(panels), [2.2] * -(-len(panels) // 2))
    for panel, ax in zip(panels, axes, strict=True):
        part = named[named.panel == panel]
        _points_by_round(ax, steps[steps.panel == panel], shown)
        ax.set_title(panel)
        if part.emulated.any() or not part.timings_valid.all():
            hatched(ax)
    medians = steps.groupby([*RESULT, "hostname", "round"]).ms.median().groupby(RESULT)
    spread = (medians.max() / medians.min()).max()
    title = (
        f"From round to round, a configuration's median step varies by up to "
        f"{100 * (spread - 1):.0f} %"
        if table["rounds"].max() > 1
        else "One round: how steps vary from round to round is not known"
    )
    ranges = steps.groupby(["panel", "series"], sort=False).ms.agg(["min", "median", "max"])
    spoken = [
        f"{series} at {panel}: {quantity(low)} to {quantity(high)} ms, median {quantity(middle)}"
        for (panel, series), low, middle, high in list(ranges.itertuples(name=None))[:16]
    ]
    notes = [
        "A point is a step, the slowest rank's time; a bar is the median of its round.",
        *left,
        *caveats(table),
    ]
    behind = suffixes(table)
    legend = [handle(look, behind[name]) for name, look in shown.items()]
    return finish(figure, title, "; ".join(spoken), notes, legend)


def _steps(frame: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Measured steps of trials that are ok: `RESULT`, hostname, round, step, ms."""
    keys = [*RESULT, "hostname", "round", "step"]
    measured = samples[(samples.phase == "step") & ~samples.warmup.astype(bool)]
    names = [*RESULT, "hostname", "round"]
    timed = frame[frame.step_s.notna()][names].fillna({"hostname": ""})
    measured = measured.astype(dict.fromkeys((*RESULT, "hostname"), "str"))
    measured = measured.fillna({"hostname": ""}).merge(timed, on=names)
    if measured.empty:
        return pd.DataFrame({name: [] for name in (*keys, "ms")})
    steps = measured.groupby(keys).seconds.max() * MS
    return steps.rename("ms").reset_index()


def _points_by_round(ax: Axes, steps: pd.DataFrame, shown: dict[str, Look]) -> None:
    ax.grid(True, axis="y")
    ax.set_axisbelow(True)
    ax.set_ylabel("step time [ms]")
    if steps.empty:
        nothing_here(ax, "no trial here has a time")
        return
    width = 0.8 / max(len(shown), 1)
    for index, (name, look) in enumerate(shown.items()):
        line = steps[steps.series == name]
        x = line["round"] + (index - (len(shown) - 1) / 2) * width
        ax.plot(
            x,
            line.ms,
            color=look.colour,
            linestyle="none",
            marker=look.marker,
            markersize=3,
            markerfacecolor=look.colour if look.filled else "white",
            markeredgewidth=0.6,
            rasterized=len(steps) > 2000,
        )
        middle = line.groupby("round").ms.median()
        at = middle.index.to_numpy() + (index - (len(shown) - 1) / 2) * width
        ax.hlines(middle, at - width / 2, at + width / 2, color="black", linewidth=1.2)
    rounds = sorted(set(steps["round"]))
    every = -(-len(rounds) // 10)
    ax.set_xticks(rounds[::every])
    ax.set_xlabel("round")
