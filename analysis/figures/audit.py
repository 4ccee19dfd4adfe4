"""The audit matrix as a figure: a panel for each group of environments that came out alike."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.audit import Facet, facets, named, sentences
from analysis.audit_table import emulation, header, heading
from analysis.audit_table import notes as failures
from analysis.figures.style import (
    FAILED,
    FAILED_HATCH,
    VERDICT_COLOURS,
    Colour,
    blank,
    finish,
    grid,
    on_tile,
    styled,
    tile,
    wrapped,
)
from analysis.table import NOT_COMPARED, marks, reasons, variant_notes

MAX_FACETS, MAX_ROWS = 6, 40
ROW_INCHES = 0.24
MIXED: tuple[Colour, Colour] = ("#CC79A7", "black")
MEANING = {
    "match": "×1: the reference's gradient",
    "scaled": "×2 …: direction right, factor not 1",
    "wrong": "wrong: another direction",
    "none": "none: no gradient",
    "mixed": "rounds or ranks disagree",
    "failed": "failed, by what was raised",
    "unknown": "not run or not compared",
}


@styled
def gradient_matrix(frame: pd.DataFrame) -> Figure:
    """Verdict and factor: rows are aggregation, split and mask, columns ZeRO stages.

    Environments, rows and stages whose cells are equal are drawn once.
    """
    if frame.empty or (frame.gradient_verdict.isna().all() and (frame.status == "ok").all()):
        why = " ".join(f"{line}." for line in reasons(frame)) if len(frame) else ""
        return blank(
            "No gradient was compared", why or "gradient_check was off, or there are no trials."
        )
    found = facets(frame)
    shown = found[:MAX_FACETS]
    heights = [ROW_INCHES * (min(len(facet.rows), MAX_ROWS) + 3) for facet in shown]
    figure, panels = grid(len(shown), heights, columns=1)
    for ax, facet in zip(panels, shown, strict=True):
        _panel(ax, facet)
    kinds = {cell.kind for facet in shown for row in facet.rows for cell in row.cells}
    legend = [_patch(kind) for kind in MEANING if kind in kinds]
    above = (
        *(one for facet in shown for one in named(facet)),
        *marks(frame),
        *variant_notes(frame),
    )
    notes = [f"{line}." for line in dict.fromkeys((*above, *emulation(frame)))]
    notes += [
        f"{note}." if note.startswith(NOT_COMPARED) else f"Failed: {note}."
        for facet in shown
        for note in failures(facet)
    ]
    if len(found) > len(shown):
        notes.append(f"{len(shown)} of {len(found)} groups of environments are shown.")
    if any(len(facet.rows) > MAX_ROWS for facet in shown):
        notes.append(f"Of each group {MAX_ROWS} rows are shown; `spbench audit` shows all.")
    return finish(figure, _title(found), " ".join(sentences(frame)).rstrip("."), notes, legend)


def _panel(ax: Axes, facet: Facet) -> None:
    rows = facet.rows[:MAX_ROWS]
    columns = header(facet)[len(facet.axes) :]
    ax.set_xlim(0, len(columns))
    ax.set_ylim(len(rows), 0)
    ax.set_title(wrapped(heading(facet), 60), loc="left", fontsize=8, fontweight="bold")
    ax.set_xticks([x + 0.5 for x in range(len(columns))], columns)
    labels = [wrapped("  ".join(row.values), 60, lines=1) for row in rows]
    ax.set_yticks([y + 0.5 for y in range(len(rows))], labels)
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize=7)
    ax.spines[:].set_visible(False)
    wide = 44 // len(columns)
    for y, row in enumerate(rows):
        for x, cell in enumerate(row.cells):
            back, fore = _colours(cell.kind)
            tile(ax, x, y, back, FAILED_HATCH if cell.kind == "failed" else "")
            text = wrapped(cell.text, wide, lines=1)
            ax.text(x + 0.5, y + 0.5, text, color=fore, fontsize=7, **on_tile(back))


def _colours(kind: str) -> tuple[Colour, Colour]:
    return MIXED if kind == "mixed" else VERDICT_COLOURS.get(kind, FAILED)


def _patch(kind: str) -> Patch:
    hatch = FAILED_HATCH if kind == "failed" else ""
    edge = "#999999" if kind == "failed" else "#444444"
    return Patch(facecolor=_colours(kind)[0], edgecolor=edge, hatch=hatch, label=MEANING[kind])


def _title(found: list[Facet]) -> str:
    """Whether one aggregation is right everywhere."""
    losses = [set(right) for facet in found for right in facet.right.values()]
    always = sorted(set.intersection(*losses)) if losses else []
    if always:
        return f"Right in every case: {', '.join(always)}"
    stages = {stage: set[str]() for facet in found for stage in facet.right}
    for stage in stages:
        of_stage = [set(facet.right[stage]) for facet in found if stage in facet.right]
        stages[stage] = set.intersection(*of_stage)
    if not any(stages.values()):
        return "No loss aggregation has the right gradient in every case"
    return f"No loss aggregation is right at every ZeRO stage: {_runs(stages)}"


def _runs(stages: dict[int, set[str]]) -> str:
    """`at ZeRO 0, 1, 2 local; at ZeRO 3 all_gather`: stages with equal answers together."""
    by_losses: dict[str, list[str]] = {}
    for stage, losses in stages.items():
        by_losses.setdefault(", ".join(sorted(losses)) or "none", []).append(str(stage))
    return "; ".join(f"at ZeRO {', '.join(of)} {losses}" for losses, of in by_losses.items())
