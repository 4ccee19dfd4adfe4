"""Where a step's time goes: stacked by category, a bar for each rank; and bytes beside theory."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.breakdown import CATEGORIES
from analysis.figures.style import (
    HATCH,
    blank,
    finish,
    grid,
    limited,
    quantity,
    styled,
    wrapped,
)
from analysis.table import in_order, row_axes
from analysis.wording import span

CATEGORY_COLOURS = {
    "attention": "#332288",
    "matrix": "#88CCEE",
    "all_to_all": "#CC6677",
    "gradient_reduction": "#117733",
    "parameter_gathering": "#999933",
    "loss_aggregation": "#882255",
    "optimizer": "#BBBBBB",
    "waiting": "#DDCC77",
    "rest": "#E8E8E8",
    "idle": "#FFFFFF",
}
"""Paul Tol's muted scheme; the loss aggregation and the optimizer as in the figure of phases."""

MOST_PANELS = 8
MOST_RANKS = 16
MS = 1e3


@styled
def breakdown(frame: pd.DataFrame, parts: pd.DataFrame) -> Figure:
    """Time of a profiled step [ms] by category, a bar for each rank, a panel for each trial.

    `frame` is `analysis.frame.load`'s, `parts` is `analysis.breakdown.profiles`'s `breakdown`.
    """
    trials = _ordered(frame[frame.trial_id.isin(parts.trial_id)])
    if trials.empty:
        return blank("No profile", "No trial of scenario profile ended well.")
    shown = trials.head(MOST_PANELS)
    ranks = min(MOST_RANKS, int(parts["rank"].max()) + 1)
    columns = 2 if len(shown) > 1 else 1
    height = 0.85 + 0.19 * ranks
    figure, panels = grid(len(shown), [height] * -(-len(shown) // columns), columns=columns)
    names = _names(trials)
    longest = 1.02 * parts[parts.trial_id.isin(shown.trial_id)].sum_s.max() * MS
    for ax, trial in zip(panels, shown.itertuples(), strict=True):
        mine = parts[parts.trial_id == trial.trial_id]
        _bars(ax, mine[mine["rank"] < ranks], hatch=trial.emulated or not trial.timings_valid)
        ax.set_xlim(0, longest)
        ax.set_title(wrapped(names[trial.trial_id], 40 if columns == 2 else 84), loc="left")
    for ax in panels[-columns:]:
        ax.set_xlabel("profiled step [ms]")
    share = _shares(parts[parts.trial_id.isin(trials.trial_id)])
    largest = share.groupby("category").share.mean().idxmax()
    within = share[share.category == largest].share
    title = f"{_called(largest)} takes {span(100 * within, '.0f')} % of a step"
    notes = ["Profiled steps run after the measured ones and are slower."]
    if shown.emulated.any():
        notes.append("Hatched: torch's NCCL code path emulated on gloo.")
    if len(trials) > len(shown):
        notes.append(f"{len(shown)} of {len(trials):,} trials are shown.")
    present = [name for name in CATEGORIES if (parts[parts.category == name].seconds > 0).any()]
    legend = [
        Patch(
            facecolor=CATEGORY_COLOURS[name],
            edgecolor="#888888",
            linewidth=0.4,
            label=CATEGORIES[name],
        )
        for name in present
    ]
    return finish(figure, title, "; ".join(_spoken(share, names)), notes, legend)


def volume_table(frame: pd.DataFrame, ulysses: pd.DataFrame) -> pd.DataFrame:
    """Ulysses's all-to-alls per step, counted beside theory: a row for each trial and pass.

    `ulysses` is `analysis.breakdown.profiles`'s. Ranks that agree with each other share a row.
    """
    trials = _ordered(frame[frame.trial_id.isin(ulysses.trial_id)])
    names = _names(trials)
    rows = []
    for trial in trials.trial_id:
        mine = ulysses[ulysses.trial_id == trial]
        counted = ["pass", "calls", "expected_calls", "bytes", "expected_bytes", "agrees"]
        for values, ranks in mine.groupby(counted, sort=False):
            row = dict(zip(counted, values, strict=True))
            rows.append(
                {
                    "trial": names[trial],
                    "ranks": ", ".join(map(str, sorted(ranks["rank"]))),
                    "pass": row["pass"],
                    "calls": f"{row['calls']:g}",
                    "theory's": f"{row['expected_calls']:g}",
                    "bytes sent per rank": f"{row['bytes']:,.0f}",
                    "theory's bytes": f"{row['expected_bytes']:,.0f}",
                    "agree": "yes" if row["agrees"] else "NO",
                }
            )
    return pd.DataFrame(rows, columns=None if rows else ["no trial used Ulysses"])


def overlap_table(frame: pd.DataFrame, overlap: pd.DataFrame) -> pd.DataFrame:
    """Transfer per step and how much of it computation hides: means over ranks, as text."""
    trials = _ordered(frame[frame.trial_id.isin(overlap.trial_id)])
    names = _names(trials)
    rows = []
    for trial in trials.trial_id:
        mine = overlap[overlap.trial_id == trial]
        transfer, hidden = mine.transfer_s.mean(), mine.hidden_s.mean()
        rows.append(
            {
                "trial": names[trial],
                "transfer [ms]": f"{transfer * MS:,.2f}",
                "hidden [ms]": f"{hidden * MS:,.2f}",
                "hidden share": f"{100 * hidden / transfer:.1f} %" if transfer else "",
            }
        )
    return pd.DataFrame(rows, columns=None if rows else ["no trial was profiled"])


def _ordered(trials: pd.DataFrame) -> pd.DataFrame:
    axes = row_axes(trials) if len(trials) else []
    return trials.sort_values([*axes, "hostname", "round"], key=in_order(trials))


def _names(trials: pd.DataFrame) -> dict[str, str]:
    """What tells each trial from the others: `sp=2 zero=1`."""
    axes = row_axes(trials) if len(trials) else []
    axes = [name for name in axes if name != "dp" or "sp" not in axes]
    axes += [name for name in ("hostname", "round") if trials[name].nunique() > 1]
    return {
        row["trial_id"]: " ".join(f"{name.rpartition('.')[2]}={row[name]}" for name in axes)
        or str(row["trial_id"])
        for row in trials.to_dict("records")
    }


def _bars(ax: Axes, parts: pd.DataFrame, hatch: bool) -> None:
    ranks = sorted(parts["rank"].unique())
    left = dict.fromkeys(ranks, 0.0)
    for category in CATEGORIES:
        for row in parts[parts.category == category].itertuples():
            width = row.seconds * MS
            ax.barh(
                row.rank,
                width,
                left=left[row.rank],
                height=0.78,
                color=CATEGORY_COLOURS[category],
                hatch=HATCH if hatch else None,
                edgecolor="#FFFFFF80",
                linewidth=0,
            )
            left[row.rank] += width
    ax.set_yticks(ranks, [f"rank {rank}" for rank in ranks], fontsize=7.5)
    ax.invert_yaxis()
    ax.grid(True, axis="x")
    ax.set_axisbelow(True)


def _shares(parts: pd.DataFrame) -> pd.DataFrame:
    """Share of each category in each trial's time, all ranks together."""
    by = parts.groupby(["trial_id", "category"], as_index=False).seconds.sum()
    by["share"] = by.seconds / by.groupby("trial_id").seconds.transform("sum")
    return by


def _spoken(share: pd.DataFrame, names: dict[str, str]) -> list[str]:
    lines = []
    for trial, mine in share.groupby("trial_id"):
        largest = mine.nlargest(3, "share")
        parts = [
            f"{CATEGORIES[r.category]} {quantity(100 * r.share)} %" for r in largest.itertuples()
        ]
        lines.append(f"{names[str(trial)]}: {', '.join(parts)}")
    return limited(lines, 16, "trials")


def _called(category: str) -> str:
    name = CATEGORIES[category]
    return name[0].upper() + name[1:]
