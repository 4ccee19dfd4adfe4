"""The audit of collectives: which are right where, and what bandwidth they reach."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.collectives import (
    Row,
    is_emulated,
    kind_of,
    matrix,
    says_nothing,
    summary,
    timings,
    variants_of,
)
from analysis.figures.style import (
    FAILED,
    FAILED_HATCH,
    VERDICT_COLOURS,
    blank,
    finish,
    grid,
    hatched,
    on_tile,
    styled,
    tile,
    wrapped,
)

COLOURS = {
    "ok": VERDICT_COLOURS["match"],
    "no gradient": VERDICT_COLOURS["none"],
    "lost": FAILED,
    "wrong": VERDICT_COLOURS["wrong"],
    "error": FAILED,
    "hang": VERDICT_COLOURS["scaled"],
    "crash": VERDICT_COLOURS["scaled"],
}
MEANING = {
    "ok": "ok",
    "no gradient": "no gradient",
    "wrong": "wrong on some rank, without an error",
    "error": "some rank raises",
    "hang": "hang or crash",
}
HATCHED = ("error", "lost")
MAX_ROWS, MAX_COLUMNS = 60, 8
LINE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
"""Of collectives in the bandwidth figure: Okabe and Ito's palette."""


@styled
def collectives(folder: Path | str, frame: pd.DataFrame) -> Figure:
    """The matrix: collectives and arguments that are not right everywhere, by version and comm."""
    found = matrix(folder, frame)
    if not found.rows:
        what = f"Right: {', '.join(found.right)}." if found.right else "No collective was run."
        return blank("No collective is wrong anywhere" if found.right else "No collectives", what)
    rows, columns = found.rows[:MAX_ROWS], found.columns[:MAX_COLUMNS]
    notes = [
        "sp: side by side on every sequence-parallel group. (2,3): on these ranks; the others "
        "are ok. Upstream gradients are named where it depends on them.",
        f"Right in every case: {', '.join(found.right) or 'none'}.",
    ]
    if len(found.rows) > len(rows) or len(found.columns) > len(columns):
        notes.append(
            f"{len(rows)} of {len(found.rows)} rows and {len(columns)} of {len(found.columns)} "
            "columns are shown."
        )
    if any(map(is_emulated, columns)):
        notes.append("nccl_over_gloo: torch's NCCL code path emulated on gloo.")
    labels = [wrapped(_label(row), 44, lines=3) for row in rows]
    heights = [0.09 + 0.125 * max(2, label.count("\n") + 1) for label in labels]
    figure, [ax] = grid(1, [0.7 + sum(heights)])
    _draw(ax, rows, columns, labels)
    kinds = {kind_of(cell) for row in rows for cell in row.cells}
    legend = [
        Patch(
            facecolor=COLOURS[kind][0],
            edgecolor="#444444",
            hatch=FAILED_HATCH if kind in HATCHED else "",
            label=text,
        )
        for kind, text in MEANING.items()
        if kind in kinds or (kind == "hang" and "crash" in kinds)
    ]
    spoken = [
        f"{_label(row)}: "
        + ", ".join(f"{column} {cell}" for column, cell in zip(columns, row.cells, strict=False))
        for row in rows[:40]
    ]
    return finish(figure, summary(found), "; ".join(spoken).replace("\n", ", "), notes, legend)


@styled
def bandwidth(folder: Path | str, frame: pd.DataFrame) -> Figure:
    """Bus bandwidth over message size, forward and backward, a panel per version and comm."""
    table = timings(folder, frame)
    table = table[table.seconds.notna()]
    if table.empty:
        return blank("No bandwidth was measured", "Run the sweep with options.timing=true.")
    columns = list(dict.fromkeys(table.column))
    names = list(dict.fromkeys(table.collective))
    figure, panels = grid(len(columns), [2.3] * -(-len(columns) // 2))
    for ax, column in zip(panels, columns, strict=True):
        if is_emulated(column):
            hatched(ax)
        for name, colour in zip(names, LINE_COLOURS * len(names), strict=False):
            for direction, line in (("forward", "-"), ("backward", "--")):
                one = table[
                    (table.column == column)
                    & (table.collective == name)
                    & (table.direction == direction)
                ].sort_values("bytes")
                ax.plot(
                    one.bytes / 2**20,
                    one.bus_bandwidth / 1e9,
                    line,
                    color=colour,
                    marker="o",
                    markersize=3,
                    label=name if direction == "forward" else None,
                )
        ax.set_title(column)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlabel("handed in by each rank [MiB]")
        ax.set_ylabel("bus bandwidth [GB/s]")
    legend = list(panels[0].get_legend_handles_labels()[0])
    best = table.loc[table.bus_bandwidth.idxmax()]
    title = (
        f"{best.collective} reaches {best.bus_bandwidth / 1e9:.2g} GB/s on the bus "
        f"({best.direction}, {best.bytes / 2**20:.3g} MiB)"
    )
    notes = ["Solid: forward; dashed: backward. Bus bandwidth as nccl-tests defines it."]
    if any(map(is_emulated, columns)):
        notes.append("Hatched: the NCCL code path emulated on gloo; the times are gloo's.")
    wrong = int(table.wrong.sum())
    if wrong:
        notes.append(f"{wrong:,} elements were wrong: these are not times of the right result.")
    return finish(figure, title, "", notes, legend)


def _label(row: Row) -> str:
    """`nn.gather (root=last) on sp`, and on a line of its own what upstream gradient."""
    variants = variants_of(row)
    text = ", ".join(row.collectives) + (f" ({variants})" if variants else "")
    groups = ", ".join(filter(None, row.groups))
    text += f" on {groups}" if groups else ""
    if any(row.forms):
        text += f"\n{', '.join(row.forms)}"
    return text


def _draw(ax: Axes, rows: list[Row], columns: list[str], labels: list[str]) -> None:
    """Tiles of one height; the figure is as high as its labels need."""
    ax.set_xlim(0, len(columns))
    ax.set_ylim(len(rows), 0)
    wide = max(8, 60 // len(columns))
    ax.set_xticks(
        [x + 0.5 for x in range(len(columns))],
        list(map(_heading, columns)),
    )
    ax.set_yticks([y + 0.5 for y in range(len(rows))], labels)
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize=6)
    ax.spines[:].set_visible(False)
    for y, row in enumerate(rows):
        for x, cell in enumerate(row.cells[: len(columns)]):
            kind = kind_of(cell)
            back, fore = FAILED if says_nothing(cell) else COLOURS[kind]
            tile(ax, x, y, back, FAILED_HATCH if kind in HATCHED else "")
            text = wrapped(cell.replace("; ", "\n"), wide, lines=2)
            ax.text(x + 0.5, y + 0.5, text, color=fore, fontsize=5.5, **on_tile(back))


def _heading(column: str) -> str:
    return column.replace(" ", "\n").replace("nccl_over_gloo", "nccl_over\n_gloo")
