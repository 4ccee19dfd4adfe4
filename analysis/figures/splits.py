"""How ranks are best split over data and sequence, measured: speed, and what a token costs."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.points import caveats, interval_note, points, wrong_note
from analysis.figures.style import (
    LINES,
    MARKERS,
    blank,
    finish,
    grid,
    hatched,
    quantity,
    sequence_axis,
    strike,
    styled,
)
from analysis.identities import PARTS
from analysis.selection import text_of
from analysis.table import varying_axes
from bench.theory import tokens_per_second

COLOURS = ("#332288", "#CC6677", "#44AA99", "#DDCC77", "#882255", "#88CCEE")
"""For splits, in the order of sp."""
ENDS = ("", "_low", "_high")
_OF_A_SPLIT = ("sp", "dp", "micro_batch", "seq_len")
"""Axes in which splits with equal steps differ."""


def same_tokens(frame: pd.DataFrame) -> pd.DataFrame:
    """`points` of the configurations that differ in their split, at the same tokens a step.

    Of `analysis.frame.load`'s frame. Columns `split`, `tokens_per_step` and `gpu_s_per_token`
    (rank-seconds per token) are added. Of every other axis, and of code, versions and machines,
    the most frequent value is kept: `attrs["kept"]` names those of the axes that vary.
    """
    table = points(frame)
    if table.empty or table.step_s.isna().all():
        table.attrs["kept"] = []
        return table.iloc[:0].assign(split=[], tokens_per_step=[], gpu_s_per_token=[])
    table = table[table.step_s.notna()].copy()
    kept = []
    axes = [name for name in varying_axes(table) if name not in _OF_A_SPLIT]
    for axis in [*axes, *PARTS, "variant"]:
        values = table[axis].map(text_of)
        most = values.value_counts().index[0]
        kept += [f"{axis}={most}"] if axis in axes else []
        table = table[values == most]
    table.attrs["kept"] = kept
    table["tokens_per_step"] = table.dp * table.micro_batch * table.seq_len
    table["split"] = [f"sp={row.sp} dp={row.dp}" for row in table.itertuples()]
    rates = [
        tokens_per_second(row.dp, row.micro_batch, row.seq_len, row.step_s)
        for row in table.itertuples()
    ]
    table["gpu_s_per_token"] = table.world / pd.Series(rates, index=table.index)
    compared = table.groupby(["seq_len", "tokens_per_step"]).split.transform("nunique") > 1
    return table[compared].sort_values(["sp", "seq_len"])


@styled
def splits(frame: pd.DataFrame) -> Figure:
    """Tokens/s per rank, and rank-seconds per 1,000 tokens, of splits with equal steps."""
    table = same_tokens(frame)
    if table.empty:
        return blank(
            "Splits are not compared",
            "No two splits of the same ranks have the same tokens in a step: +experiment=splits.",
        )
    figure, [speed, cost] = grid(2, [2.8])
    handles = []
    for index, (split, group) in enumerate(table.groupby("split", sort=False)):
        look: dict[str, Any] = {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": LINES[index % len(LINES)],
            "marker": MARKERS[index % len(MARKERS)],
            "label": str(split),
        }
        lengths, world = group.seq_len.tolist(), group.world
        _bars(speed, lengths, *(group[f"tokens_per_s{end}"] / world for end in ENDS), **look)
        per_token = (1000 * world / group[f"tokens_per_s{end}"] for end in ENDS)
        _bars(cost, lengths, *per_token, **look)
        wrong = (group.fault != "").to_numpy()
        strike(speed, group.seq_len[wrong], (group.tokens_per_s / world)[wrong])
        strike(cost, group.seq_len[wrong], (1000 * world / group.tokens_per_s)[wrong])
        handles.append(Line2D([], [], **look))
    for axes in (speed, cost):
        sequence_axis(axes, table.seq_len.tolist())
        axes.set_ylim(bottom=0)
        axes.grid(True, axis="y")
        if table.emulated.any() or not table.timings_valid.all():
            hatched(axes)
    speed.set_ylabel("tokens/s per rank")
    cost.set_ylabel("rank-seconds per 1,000 tokens")
    notes = [
        "Configurations of a sequence length have equal tokens in a step.",
        *wrong_note(table),
        *([f"Of what was swept: {', '.join(table.attrs['kept'])}."] if table.attrs["kept"] else []),
        *interval_note(table),
        *caveats(table),
    ]
    return finish(figure, _message(table), _spoken(table), notes, handles)


def _bars(
    axes: Axes, x: list[int], value: pd.Series, one_end: pd.Series, other: pd.Series, **look: Any
) -> None:
    """A line with its intervals, whichever end of them is the lower one."""
    low, high = one_end.combine(other, min), one_end.combine(other, max)
    axes.errorbar(x, value, yerr=[value - low, high - value], capsize=2, **look)


def _message(table: pd.DataFrame) -> str:
    longest = table[(table.seq_len == table.seq_len.max()) & (table.fault == "")]
    if len(longest) < 2:
        return "Splits are not compared: of the longest sequences the gradients are wrong"
    best = longest.loc[longest.tokens_per_s.idxmax()]
    worst = longest.loc[longest.tokens_per_s.idxmin()]
    ratio = best.tokens_per_s / worst.tokens_per_s
    return (
        f"At {best.seq_len:,} tokens {best.split} is the fastest split, {ratio:.2f} times "
        f"as fast as {worst.split}"
    )


def _spoken(table: pd.DataFrame) -> str:
    return "; ".join(
        f"{row.split}, {row.seq_len:,} tokens: {quantity(row.tokens_per_s / row.world)} tokens/s "
        f"per rank, {quantity(1000 * row.gpu_s_per_token)} rank-seconds per 1,000 tokens"
        for row in table.itertuples()
    )
