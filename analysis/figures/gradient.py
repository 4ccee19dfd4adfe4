"""The audit of gradients: what each side's gradient is beside the exact reference."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.figures.points import SERIES, panel_axes, points
from analysis.figures.style import (
    FAILED,
    FAILED_HATCH,
    VERDICT_COLOURS,
    blank,
    finish,
    grid,
    on_tile,
    styled,
    tile,
    wrapped,
)
from analysis.identities import RESULT
from analysis.table import NOT_COMPARED, in_order, natural, reasons
from analysis.wording import marked

WORST_FIRST = ("wrong", "none", "scaled", "match")
MAX_SIDES, MAX_SPLITS = 8, 40
NUMBERS = {
    "relative_error": "relative error",
    "residual": "residual",
    "noise_floor": "noise floor",
}
MEANING = {
    "match": "match: the reference's gradient",
    "scaled": "scaled: direction right, factor not 1",
    "wrong": "wrong: another direction",
    "none": "none: no gradient",
}


class Cell(NamedTuple):
    """What one side is at one split."""

    kind: str
    """A verdict, `failed`, or `unknown`."""
    text: str


@styled
def gradient_audit(frame: pd.DataFrame) -> Figure:
    """Verdict, scale and relative error of the first step's gradient: sides by splits.

    A cell takes all sequence lengths and rounds together and shows the worst verdict among them.
    """
    if frame.empty or (frame.gradient_verdict.isna().all() and (frame.status == "ok").all()):
        why = " ".join(f"{line}." for line in reasons(frame)) if len(frame) else ""
        return blank(
            "No gradient was compared", why or "gradient_check was off, or there are no trials."
        )
    cells = audit(frame)
    sides = list(dict.fromkeys(side for side, _ in cells))
    splits = list(dict.fromkeys(split for _, split in cells))
    left = []
    if len(sides) > MAX_SIDES or len(splits) > MAX_SPLITS:
        left.append(
            f"{min(len(sides), MAX_SIDES)} of {len(sides)} sides and "
            f"{min(len(splits), MAX_SPLITS)} of {len(splits)} splits are shown."
        )
    height = 0.4 if len(sides) < 5 else 0.55
    figure, [ax] = grid(1, [0.5 + height * min(len(splits), MAX_SPLITS)])
    _matrix(ax, cells, sides[:MAX_SIDES], splits[:MAX_SPLITS])
    kinds = [cell.kind for cell in cells.values()]
    legend = [
        Patch(facecolor=VERDICT_COLOURS[kind][0], edgecolor="#444444", label=MEANING[kind])
        for kind in MEANING
        if kind in kinds
    ]
    if "failed" in kinds:
        legend.append(
            Patch(facecolor="white", edgecolor="#999999", hatch=FAILED_HATCH, label="failed")
        )
    spoken = [
        f"{side} at {split}: {cell.kind}, {cell.text}".replace("\n", ", ")
        for (side, split), cell in list(cells.items())[:40]
    ]
    notes = [
        "Factor to the exact float64 reference, and relative error: all sequence lengths and "
        "rounds together, the worst is shown.",
        *(f"{line}." for line in reasons(frame)),
        *left,
    ]
    return finish(figure, _message(cells), "; ".join(spoken), notes, legend)


def audit(frame: pd.DataFrame) -> dict[tuple[str, str], Cell]:
    """The cell of each side (`torch-2.13 all_gather`) and split (`sp=2 dp=2`), sorted."""
    table = points(frame)
    placed = frame.join(table.set_index(RESULT)[["panel", "series"]], on=RESULT)
    sides = table.sort_values([*SERIES, "variant"], key=in_order(frame)).series.unique()
    splits = table.sort_values(panel_axes(frame), key=lambda c: c.map(natural)).panel.unique()
    groups = dict(list(placed.groupby(["series", "panel"])))
    return {
        (side, split): _cell(groups[side, split])
        for side in sides
        for split in splits
        if (side, split) in groups
    }


def gradient_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The audit's numbers as text, a row for each result: medians over rounds."""
    groups = dict(list(frame.groupby(RESULT)))
    rows = []
    for order in points(frame).itertuples():
        trials = groups[order.config_hash, order.variant]
        compared = trials[trials.gradient_verdict.notna()]
        if compared.empty:
            continue
        rows.append(
            {
                "split": order.panel,
                "tokens": f"{trials.seq_len.iloc[0]:,}",
                "side": order.series,
                "verdict": ", ".join(
                    dict.fromkeys(map(marked, compared.gradient_verdict, compared.gradient_mode))
                ),
                "scale": ", ".join(dict.fromkeys(compared.gradient_scale_label.dropna())),
                **{
                    label: _scientific(compared[f"gradient_{name}"].median())
                    for name, label in NUMBERS.items()
                },
                "loss": _decimal(compared.first_loss.median()),
                "reference's": _decimal(compared.reference_loss.median()),
            }
        )
    return pd.DataFrame(rows, columns=None if rows else ["no gradient was compared"])


def _scientific(value: float) -> str:
    return "" if value != value else f"{value:.1e}"


def _decimal(value: float) -> str:
    return "" if value != value else f"{value:.6f}"


def _cell(trials: pd.DataFrame) -> Cell:
    compared = trials[trials.gradient_verdict.notna()]
    failure = "; ".join(dict.fromkeys(map(str, trials.failure.dropna())))
    if compared.empty:
        return Cell("failed", failure) if failure else Cell("unknown", NOT_COMPARED)
    kind = min(compared.gradient_verdict, key=WORST_FIRST.index)
    worst = compared[compared.gradient_verdict == kind]
    scales = ", ".join(dict.fromkeys(map(str, worst.gradient_scale_label.dropna())))
    error = worst.gradient_relative_error.max()
    mode = worst.gradient_mode.iloc[0]
    parts = [marked(scales or kind, mode)]
    if mode != "directional":  # which has no reference gradient to differ from
        parts.append(f"error {error:.1e}" if error == error else "error unknown")
    if failure:
        parts.append(f"✕ {len(trials) - len(compared):,} of {len(trials):,} failed")
    return Cell(kind, "\n".join(parts))


def _matrix(
    ax: Axes, cells: dict[tuple[str, str], Cell], sides: list[str], splits: list[str]
) -> None:
    ax.set_xlim(0, len(sides))
    ax.set_ylim(len(splits), 0)
    wide = 84 // len(sides)
    heads = [wrapped(side.replace(" ", "\n", 1), wide) for side in sides]
    ax.set_xticks([x + 0.5 for x in range(len(sides))], heads)
    ax.set_yticks([y + 0.5 for y in range(len(splits))], [wrapped(name, 22) for name in splits])
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize=7.5)
    ax.spines[:].set_visible(False)
    for y, split in enumerate(splits):
        for x, side in enumerate(sides):
            cell = cells.get((side, split), Cell("unknown", "not run"))
            back, fore = VERDICT_COLOURS.get(cell.kind, FAILED)
            tile(ax, x, y, back, FAILED_HATCH if cell.kind == "failed" else "")
            text = wrapped(cell.text, wide, lines=2)
            ax.text(x + 0.5, y + 0.5, text, color=fore, fontsize=7, **on_tile(back))


def _message(cells: dict[tuple[str, str], Cell]) -> str:
    """How many are right, and who is not."""
    compared = {place: cell for place, cell in cells.items() if cell.kind in VERDICT_COLOURS}
    right = sum(cell.kind == "match" for cell in compared.values())
    failed = sum(cell.kind == "failed" for cell in cells.values())
    title = f"The gradient is right in {right} of {len(compared)} cases"
    off = list(dict.fromkeys(side for (side, _), cell in compared.items() if cell.kind != "match"))
    if off:
        title += f"; it is not with {', '.join(off[:3])}"
        title += f" and {len(off) - 3} others" if len(off) > 3 else ""
    if failed:
        title += f"; {failed} failed before it was known"
    return title
