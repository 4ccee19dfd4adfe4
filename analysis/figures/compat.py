"""The matrix of `compat` as a figure: DeepSpeed by torch, a strip for each ZeRO stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from analysis.compat import Matrix, Outcome, Pair, in_order, matrices, stages_text, summary
from analysis.figures.style import (
    FAILED,
    FAILED_HATCH,
    VERDICT_COLOURS,
    blank,
    finish,
    grid,
    on_tile,
    styled,
    wrapped,
)

RAN = VERDICT_COLOURS["match"]
WORST_FIRST = ("failed", "wrong", "none", "scaled", "ran", "match")
MEANING = {
    "match": "runs, and the gradient is right",
    "ran": "runs; no gradient was compared",
    "scaled": "runs; gradient scaled",
    "wrong": "runs; gradient wrong",
    "none": "runs; no gradient",
}
STRIP_INCHES = 0.2
MOST_ROWS, MOST_COLUMNS = 40, 8


@styled
def compat(folder: Path | str, frame: pd.DataFrame) -> Figure:
    """What each ZeRO stage of each pair came to; `frame` is `load(folder)`'s."""
    found = matrices(folder, frame)
    if not found:
        return blank("No pair of versions was tried", "There are no trials of scenario compat.")
    rows = [matrix.deepspeeds[:MOST_ROWS] for matrix in found]
    heights = [
        0.5 + STRIP_INCHES * sum(_strips(matrix, deepspeed) for deepspeed in names)
        for matrix, names in zip(found, rows, strict=True)
    ]
    figure, panels = grid(len(found), heights, columns=1)
    for ax, matrix, names in zip(panels, found, rows, strict=True):
        _draw(ax, matrix, names)
        if matrix.variant:
            ax.set_title(wrapped(matrix.variant, 90), loc="left", pad=18)
    return finish(figure, summary(found), _spoken(found), _notes(found), _legend(found))


def compat_table(folder: Path | str, frame: pd.DataFrame) -> pd.DataFrame:
    """Everything that failed, a row each: versions, stage, what, and the whole message."""
    rows = [
        {
            "DeepSpeed": pair.deepspeed,
            "torch": pair.torch,
            "at": stages_text([zero]),
            "variant": matrix.variant,
            "what": outcome.text,
            "message": outcome.message,
        }
        for matrix in matrices(folder, frame)
        for outcome, places in matrix.failures().items()
        for pair, zero in places
    ]
    table = pd.DataFrame(rows, columns=None if rows else ["nothing failed"])
    if rows and (table.variant == "").all():
        return table.drop(columns="variant")
    return table


def _strips(matrix: Matrix, deepspeed: str) -> int:
    """Strips that a row of the matrix needs."""
    return max(len(matrix.cells.get(Pair(torch, deepspeed), {})) for torch in matrix.torches)


def _draw(ax: Axes, matrix: Matrix, deepspeeds: Sequence[str]) -> None:
    torches = matrix.torches[:MOST_COLUMNS]
    tops = [0]
    for deepspeed in deepspeeds:
        tops.append(tops[-1] + _strips(matrix, deepspeed))
    ax.set_xlim(0, len(torches))
    ax.set_ylim(tops[-1], 0)
    ax.set_xticks([x + 0.5 for x in range(len(torches))], [f"torch {one}" for one in torches])
    middles = [(a + b) / 2 for a, b in zip(tops, tops[1:], strict=False)]
    ax.set_yticks(middles, [f"DeepSpeed {name}" for name in deepspeeds])
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize=7.5)
    ax.spines[:].set_visible(False)
    for top, deepspeed in zip(tops, deepspeeds, strict=False):
        for x, torch in enumerate(torches):
            _cell(
                ax,
                (x, top),
                matrix.cells.get(Pair(torch, deepspeed), {}),
                (_strips(matrix, deepspeed), 100 // len(torches)),
            )


def _cell(
    ax: Axes,
    place: tuple[int, int],
    cell: Mapping[int | None, tuple[Outcome, ...]],
    size: tuple[int, int],
) -> None:
    """The strips of one pair, `size` of them and so many characters wide, from `place` on."""
    (x, top), (strips, wide) = place, size
    if not cell:
        ax.text(x + 0.5, top + strips / 2, "not run", ha="center", va="center", fontsize=7)
        return
    height = strips / len(cell)
    for index, (zero, outcomes) in enumerate(cell.items()):
        worst = min(outcomes, key=lambda one: WORST_FIRST.index(one.kind))
        back, fore = FAILED if worst.kind == "failed" else VERDICT_COLOURS.get(worst.kind, RAN)
        y = top + 0.06 + index * height * (strips - 0.12) / strips
        box = Rectangle((x + 0.02, y), 0.96, height * (strips - 0.12) / strips, facecolor=back)
        box.set(edgecolor="#C0C0C0", linewidth=0.6)
        box.set_hatch(FAILED_HATCH if worst.kind == "failed" else "")
        ax.add_patch(box)
        said = " / ".join(dict.fromkeys(one.text for one in outcomes))
        text = said if zero is None else f"{zero}  {said}"
        middle = y + height * (strips - 0.12) / strips / 2
        lines = 1 if height < 2 else 2
        ax.text(
            x + 0.5, middle, wrapped(text, wide, lines), color=fore, fontsize=6.5, **on_tile(back)
        )


def _spoken(found: Sequence[Matrix]) -> str:
    return "; ".join(
        f"{matrix.variant} torch {pair.torch} with DeepSpeed {pair.deepspeed}, "
        f"{stages_text([zero])}: {', '.join(one.text for one in outcomes)}".strip()
        for matrix in found
        for pair in in_order(matrix.cells)[:40]
        for zero, outcomes in matrix.cells[pair].items()
    )


def _notes(found: Sequence[Matrix]) -> list[str]:
    notes = ["A number in a strip is its ZeRO stage, which trained in fresh processes."]
    if any(
        len(matrix.deepspeeds) > MOST_ROWS or len(matrix.torches) > MOST_COLUMNS for matrix in found
    ):
        notes.append("Not all versions are shown: `spbench show` has them.")
    return notes


def _legend(found: Sequence[Matrix]) -> list[Patch]:
    kinds = {
        one.kind
        for matrix in found
        for cell in matrix.cells.values()
        for outcomes in cell.values()
        for one in outcomes
    }
    legend = [
        Patch(facecolor=VERDICT_COLOURS.get(kind, RAN)[0], edgecolor="#444444", label=MEANING[kind])
        for kind in MEANING
        if kind in kinds
    ]
    if "failed" in kinds:
        legend.append(
            Patch(facecolor="white", edgecolor="#999999", hatch=FAILED_HATCH, label="failed")
        )
    return legend
