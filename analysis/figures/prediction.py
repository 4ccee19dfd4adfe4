"""Predicted steps: what each split spends its time on, and predicted beside recorded times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.figures.style import blank, finish, grid, quantity, styled
from analysis.prediction.checks import UNKNOWN, every_way
from analysis.prediction.fit import Residual, fit, points_of, refuse_several_machines
from analysis.prediction.splits import Setting, Split
from analysis.reading import AnalysisError
from bench.rounds import median

RESOURCE_COLOURS = {
    "compute": "#332288",
    "memory bandwidth": "#88CCEE",
    "all-to-all": "#CC6677",
    "gradient reduction": "#44AA99",
    "fixed overhead": "#BBBBBB",
}
"""Paul Tol's muted scheme, as for the phases of a step."""
GB = 1e9


@styled
def predicted_splits(setting: Setting, splits: Sequence[Split]) -> Figure:
    """GPU-seconds per 1,000 tokens by resource, and memory of a GPU [GB], a bar for each split."""
    figure, [times, memory] = grid(2, [2.8])
    names = [split.name.replace(" ", "\n") for split in splits]
    below = [0.0] * len(splits)
    for resource, colour in RESOURCE_COLOURS.items():
        heights = [_cost(split, _seconds(split)[resource]) for split in splits]
        times.bar(names, heights, bottom=below, color=colour, width=0.7)
        below = [one + height for one, height in zip(below, heights, strict=True)]
    for index, split in enumerate(splits):
        cost = _cost(split, split.step.predicted)
        times.plot([index - 0.4, index + 0.4], [cost, cost], color="black")
    times.set_ylabel("GPU-seconds per 1,000 tokens")
    room = setting.cluster.memory_bytes
    colours = ["#332288" if split.fits else "#DDDDDD" for split in splits]
    memory.bar(names, [split.memory_bytes / GB for split in splits], color=colours, width=0.7)
    memory.axhline(room / GB, color="#882255", linewidth=1.2)
    memory.set_ylabel("memory of a GPU [GB]")
    for axes in (times, memory):
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
    spoken = "; ".join(
        f"{split.name}: {quantity(split.step.predicted)} s, "
        f"{quantity(split.tokens_per_s_per_gpu)} tokens/s/GPU, {split.memory_bytes / GB:.1f} GB"
        for split in splits
    )
    notes = [
        f"{setting.model.name}, {setting.seq_len:,} tokens, {setting.gpus:,} × "
        f"{setting.cluster.name}, ZeRO {setting.zero}. Predicted, not measured. Black: with "
        "what is hidden left out. Red: the memory of a GPU; grey bars do not fit."
    ]
    legend = [Patch(color=colour, label=name) for name, colour in RESOURCE_COLOURS.items()]
    return finish(figure, _message(setting, splits), spoken, notes, legend)


@styled
def fitted(frame: pd.DataFrame) -> Figure:
    """Fitted over recorded step times [s] of `analysis.frame.load`'s frame, by split."""
    try:
        made = fit(points_of(frame), UNKNOWN)
    except AnalysisError as error:
        return blank("Nothing is fitted", f"{error}.")
    groups: dict[str, list[Residual]] = {}
    for one in made.residuals:
        groups.setdefault(one.point.split, []).append(one)
    title = (
        f"A few physical parts explain {len(made.residuals)} configurations to "
        f"{100 * made.error:.1f} % (median)"
    )
    return _beside(groups, title)


@styled
def held_out(frame: pd.DataFrame) -> Figure:
    """Predicted over recorded step times [s] of what was left out of the fit."""
    points = points_of(frame)
    try:
        refuse_several_machines(points)
    except AnalysisError as error:
        return blank("Nothing is predicted", f"{error}.")
    groups = every_way(points, UNKNOWN)
    if not groups:
        return blank(
            "Nothing is predicted",
            "Too few configurations are left when the longest sequences or a split are left out.",
        )
    errors = {name: [abs(one.relative) for one in found] for name, found in groups.items()}
    worst = max(median(found) for found in errors.values())
    named = {
        f"left out {name}: {100 * median(errors[name]):.0f} %": found
        for name, found in groups.items()
    }
    title = f"What was left out of the fit is predicted to {100 * worst:.0f} % or better (median)"
    return _beside(named, title)


def _beside(groups: Mapping[str, Sequence[Residual]], title: str) -> Figure:
    """Predicted step times over recorded ones, a colour for each group of configurations."""
    figure, [axes] = grid(1, [3.4])
    colours = ("#BBBBBB", "#332288", "#CC6677", "#44AA99", "#DDCC77", "#882255")
    legend = []
    for (name, residuals), colour in zip(groups.items(), colours, strict=False):
        recorded = [one.point.step_s for one in residuals]
        predicted = [one.predicted_s for one in residuals]
        axes.plot(recorded, predicted, "o", color=colour, markersize=4, linestyle="none")
        legend.append(Patch(color=colour, label=name))
    every = [one for residuals in groups.values() for one in residuals]
    ends = [one.point.step_s for one in every] + [one.predicted_s for one in every]
    line = [min(ends) / 1.2, max(ends) * 1.2]
    axes.plot(line, line, color="#444444", linewidth=0.8)
    axes.fill_between(
        line, [0.8 * one for one in line], [1.2 * one for one in line], color="#EEEEEE", zorder=0
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("recorded step [s]")
    axes.set_ylabel("predicted step [s]")
    spoken = "; ".join(
        f"{one.point.label}: recorded {one.point.step_s:.3f} s, predicted {one.predicted_s:.3f} s"
        for one in every[:24]
    )
    return finish(figure, title, spoken, ["Grey band: within 20 %."], legend)


def _seconds(split: Split) -> dict[str, float]:
    return {**split.step.resources, "fixed overhead": split.step.overhead}


def _cost(split: Split, seconds: float) -> float:
    """`seconds` of the step on every GPU, for 1,000 tokens."""
    return seconds / split.step.predicted / split.tokens_per_s_per_gpu * 1000


def _message(setting: Setting, splits: Sequence[Split]) -> str:
    fitting = [split for split in splits if split.fits]
    if not fitting:
        return f"{setting.model.name} fits on no split at {setting.seq_len:,} tokens"
    best = max(fitting, key=lambda split: split.tokens_per_s_per_gpu)
    return (
        f"{best.name} is predicted to be fastest: {quantity(best.tokens_per_s_per_gpu)} "
        f"tokens/s/GPU, limited by {best.limit}"
    )
