"""Lines over the sequence length: throughput and peak memory, one panel for each split."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.points import (
    Look,
    caveats,
    chosen_panels,
    failures,
    handle,
    interval_note,
    looks,
    points,
    suffixes,
    wrong_note,
)
from analysis.figures.style import (
    blank,
    finish,
    grid,
    hatched,
    nothing_here,
    quantity,
    sequence_axis,
    strike,
    styled,
)
from analysis.wording import span
from bench.theory import Training, peak_memory
from bench.trial import DTYPE_BYTES, ModelSpec

MIB = 2**20
THEORY = Line2D([], [], color="black", linestyle=(0, (1, 1)), label="theory")


@styled
def throughput(frame: pd.DataFrame) -> Figure:
    """Tokens/s [tokens/s] over the sequence length [tokens], a panel for each split."""
    table = points(frame)
    timed = table[table.tokens_per_s.notna()]
    if timed.empty:
        return blank("No throughput: no trial has a time", _why(table))
    panels, left = chosen_panels(table)
    shown = looks(table)
    figure, axes = grid(len(panels), [2.4] * -(-len(panels) // 2))
    for panel, ax in zip(panels, axes, strict=True):
        part = table[table.panel == panel]
        _lines(ax, part, shown, "tokens_per_s", 1.0)
        ax.set_title(panel)
        ax.set_ylabel("tokens/s")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if part.emulated.any() or not part.timings_valid.all():
            hatched(ax)
    alt = _spoken(timed, "tokens_per_s", 1.0, "tokens/s")
    notes = [*wrong_note(timed), *interval_note(table), *left, *caveats(table)]
    return finish(figure, _highest(timed), alt, notes, _legend(shown, timed))


def _highest(timed: pd.DataFrame) -> str:
    """The highest throughput of those whose gradient is not wrong."""
    allowed = timed[timed.fault == ""]
    if allowed.empty:
        return "No throughput counts: whatever has a time has a wrong gradient"
    best = allowed.loc[allowed.tokens_per_s.idxmax()]
    right = "with a right gradient " if (timed.fault != "").any() and best.compared else ""
    unknown = "" if best.compared else " (its gradient was not compared)"
    return (
        f"The highest throughput {right}is {best.tokens_per_s:,.0f} tokens/s: {best.series} "
        f"at {best.panel}, {best.seq_len:,} tokens{unknown}"
    )


@styled
def memory(frame: pd.DataFrame) -> Figure:
    """Peak memory per rank [MiB] over the sequence length [tokens], and what theory expects.

    Theory: `bench.theory.peak_memory`.
    """
    table = points(frame)
    known = table[table.peak_memory_bytes.notna()].copy()
    if known.empty:
        return blank("No peak memory: no trial measured it", _why(table))
    known["theory"] = [expected_bytes(row) for _, row in known.iterrows()]
    panels, left = chosen_panels(table)
    shown = looks(table)
    figure, axes = grid(len(panels), [2.4] * -(-len(panels) // 2))
    for panel, ax in zip(panels, axes, strict=True):
        part = known[known.panel == panel]
        _lines(ax, part, shown, "peak_memory_bytes", MIB)
        line = part.drop_duplicates("seq_len").sort_values("seq_len")
        ax.plot(line.seq_len, line.theory / MIB, color="black", linestyle=(0, (1, 1)), marker="_")
        ax.autoscale(axis="y")
        ax.set_ylim(bottom=0)
        ax.set_title(panel)
        ax.set_ylabel("peak memory per rank [MiB]")
    ratio = known.peak_memory_bytes / known.theory
    title = f"Peak memory per rank is {span(ratio, '.3g')} times what the theory expects"
    notes = ["Maximum over ranks and rounds.", *left, *failures(table), *wrong_note(known)]
    if known.comm.ne("nccl").any():
        notes.insert(1, "On CPU: a rank's own memory above what it shared when it was forked.")
        if known.memory_limit.isna().any():
            notes.insert(2, "Without memory_limit the C library keeps much of what was freed.")
    return finish(
        figure,
        title,
        _spoken(known, "peak_memory_bytes", MIB, "MiB"),
        notes,
        [*_legend(shown, known), THEORY],
    )


def expected_bytes(row: pd.Series) -> int:
    """Peak memory of a rank by `bench.theory` [bytes], for the axes in `row`."""
    sizes = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab")
    model = ModelSpec(
        name=str(row["model"]),
        **{name: int(row[f"model.{name}"]) for name in sizes},
        activation_checkpointing=bool(row["model.activation_checkpointing"]),
        loss_tiles=int(row["model.loss_tiles"]),
    )
    names = ("world", "sp", "zero", "micro_batch", "seq_len")
    training = Training(
        model,
        **{name: int(row[name]) for name in names},
        element_bytes=DTYPE_BYTES.get(str(row["dtype"]), 4),
        whole_bucket=row["comm"] == "nccl",
        foreach=row["comm"] == "nccl",
    )
    return peak_memory(training).total


def _lines(ax: Axes, part: pd.DataFrame, shown: dict[str, Look], column: str, unit: float) -> None:
    """The series of one panel, with error bars where the column has intervals."""
    ax.grid(True, axis="y")
    ax.set_axisbelow(True)
    sequence_axis(ax, part.seq_len.astype(int).tolist())
    if part[column].isna().all():
        nothing_here(ax, _why(part))
        return
    for index, (name, look) in enumerate(shown.items()):
        line = part[(part.series == name) & part[column].notna()].sort_values("seq_len")
        if line.empty:
            continue
        values = line[column] / unit
        bars = None
        if f"{column}_low" in line:
            bars = [values - line[f"{column}_low"] / unit, line[f"{column}_high"] / unit - values]
        aside = 1.025 ** (index - (len(shown) - 1) / 2)  # so that error bars do not hide others
        ax.errorbar(
            line.seq_len * aside,
            values,
            yerr=bars,
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markersize=4,
            markerfacecolor=look.colour if look.filled else "white",
            linewidth=1.2,
            capsize=2,
        )
        wrong = line.fault != ""
        strike(ax, (line.seq_len * aside)[wrong], values[wrong])
    ax.set_ylim(bottom=0)


def _legend(shown: dict[str, Look], known: pd.DataFrame) -> list[Line2D]:
    behind = suffixes(known)
    return [handle(look, behind.get(name, " (failed)")) for name, look in shown.items()]


def _spoken(table: pd.DataFrame, column: str, unit: float, name: str) -> str:
    """The values as text, a sentence for each split."""
    texts: list[str] = []
    for panel, part in list(table.groupby("panel", sort=False))[:4]:
        values: Iterable[str] = (
            f"{row.series} at {row.seq_len:,}: {quantity(getattr(row, column) / unit)}"
            f"{f' (gradient {row.fault})' if row.fault else ''}"
            for row in part.head(12).itertuples()
        )
        texts.append(f"{panel} [{name}]: {', '.join(values)}")
    return ". ".join(texts)


def _why(table: pd.DataFrame) -> str:
    """Why there is nothing to draw."""
    if table.empty:
        return "There are no trials."
    reasons = list(dict.fromkeys(text for text in table.failure if text))
    if not reasons:
        return "No trial left a value."
    more = f" and {len(reasons) - 1} other reasons" if len(reasons) > 1 else ""
    return f"{reasons[0]}{more}"
