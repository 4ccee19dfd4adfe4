"""Strong and weak scaling: how much of a rank's speed is left with more ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.points import Look, caveats, handle, looks, panel_axes, points, suffixes
from analysis.figures.style import blank, finish, grid, hatched, nothing_here, styled
from analysis.identities import RESULT, Sample, disagreement, samples_of
from analysis.statistics import FEWEST
from analysis.wording import span
from bench.identity import Identity
from bench.rounds import figure_of_rounds
from bench.theory import model_flops_per_step
from bench.trial import ModelSpec

KINDS = {
    "strong": "strong: the same step",
    "weak": "weak: the same tokens a rank",
}
MAX_LINES = 12


class Efficiency(NamedTuple):
    """How efficient one configuration is beside the same work on fewer ranks."""

    kind: str
    """`strong` or `weak`."""
    line: str
    """What the configurations of a line share, as text."""
    series: str
    world: int
    fewest: int
    """Ranks of the configuration that counts as 1."""
    value: float
    low: float
    high: float
    rounds: int
    """Rounds that both have."""


def efficiencies(frame: pd.DataFrame, rounds: int = FEWEST) -> list[Efficiency]:
    """Efficiency of every result that has a sibling with fewer ranks, of the same code and machine.

    Model FLOP/s per rank over that of the sibling with the fewest ranks, by round: the median
    over common rounds and its interval; configurations with fewer than `rounds` of them are left
    out. Strong: the same tokens per step, in sequences of the
    same length. Weak: the same tokens per rank, by longer sequences (seq_len / sp stays) or by
    more replicas (sp and seq_len stay). FLOPs, since attention makes longer sequences dearer
    per token: `bench.theory.model_flops_per_step`.
    """
    table = points(frame)
    timed = table[table.step_s.notna()] if len(table) else table
    if timed.empty:
        return []
    speeds = _speeds(frame)
    across = bool(frame.attrs.get("across_machines"))
    found: dict[tuple[str, str, str], Efficiency] = {}
    for kind, keys in _keys(timed, panel_axes(frame)).items():
        for line, group in timed.assign(line=keys).groupby("line", sort=False):
            group = group.sort_values("world", kind="stable")
            first = group.iloc[0]
            for row in group[group.world > first.world].itertuples():
                if disagreement(_identity(first), _identity(row), (), across):
                    continue
                base = speeds[first.config_hash, first.variant]
                one = _efficiency(kind, str(line), row, base, speeds, int(first.world))
                if one is not None and one.rounds >= rounds:
                    found.setdefault((kind.partition(" ")[0], row.config_hash, row.variant), one)
    return list(found.values())


@styled
def scaling(frame: pd.DataFrame) -> Figure:
    """Strong and weak scaling efficiency [1] over the number of ranks."""
    every = efficiencies(frame, rounds=1)
    found = [one for one in every if one.rounds >= FEWEST]
    if every and not found:
        return blank(
            "Scaling is not known",
            f"Fewer than {FEWEST} rounds in common are too few for ratios; try rounds=8, say.",
        )
    if not found:
        worlds = sorted(set(frame.world)) if len(frame) else []
        why = (
            f"All trials ran on {worlds[0]} ranks; sweep world=2,4, say, to see scaling."
            if len(worlds) == 1
            else "No two configurations do the same work on different numbers of ranks."
        )
        return blank("Scaling is not known", why)
    table = points(frame)
    shown = looks(table)
    figure, axes = grid(2, [2.6], sharey=True)
    left: list[str] = []
    for (kind, title), ax in zip(KINDS.items(), axes, strict=True):
        lines: dict[tuple[str, str], list[Efficiency]] = {}
        for one in found:
            if one.kind == kind and one.series in shown:
                lines.setdefault((one.series, one.line), []).append(one)
        if len(lines) > MAX_LINES:
            left.append(f"{MAX_LINES} of {len(lines)} lines are shown for {kind} scaling.")
        _panel(ax, title, dict(list(lines.items())[:MAX_LINES]), shown)
        if table.emulated.any() or not table.timings_valid.all():
            hatched(ax)
    axes[0].set_ylabel("efficiency (1: nothing lost)")
    kept = span((100 * one.value for one in found), ".0f")
    spoken = [
        f"{one.kind}, {one.series}, {one.line}: {one.value:.2f} at {one.world} ranks "
        f"beside {one.fewest}"
        for one in found[:24]
    ]
    few = len(every) - len(found)
    if few:
        left.append(f"{few} of {len(every)} have fewer than {FEWEST} rounds in common: not drawn.")
    notes = ["Model FLOP/s per rank beside the fewest ranks, paired by round.", *caveats(table)]
    used = {one.series for one in found}
    behind = suffixes(table)
    legend = [handle(look, behind[name]) for name, look in shown.items() if name in used]
    title = f"With more ranks, {kept} % of a rank's speed is left"
    return finish(figure, title, "; ".join(spoken), [*notes, *left], legend)


def _keys(timed: pd.DataFrame, panel: list[str]) -> Mapping[str, list[str]]:
    """What configurations on one line share, for each way to scale."""
    rest = [name for name in panel if name not in ("sp", "dp", "micro_batch")]
    strong, longer, wider = [], [], []
    for _, row in timed.iterrows():
        same = " ".join([str(row["series"]), *(f"{name}={row[name]}" for name in rest)])
        tokens = f"{row['micro_batch']} sequences"
        strong.append(f"{same} {row['dp'] * row['micro_batch']}×{row['seq_len']:,} tokens")
        local = row["seq_len"] / row["sp"]
        longer.append(f"{same} {local:,.0f} tokens a rank, dp={row['dp']}, {tokens}")
        wider.append(f"{same} seq_len={row['seq_len']:,}, sp={row['sp']}, {tokens}")
    return {"strong": strong, "weak by sequence": longer, "weak by replicas": wider}


def _identity(row: Any) -> Identity:
    return Identity(row.code, row.versions, row.machine_class)


def _speeds(frame: pd.DataFrame) -> dict[tuple[str, str], dict[Sample, float]]:
    """Model FLOP/s per rank of each result, by host and round."""
    speeds: dict[tuple[str, str], dict[Sample, float]] = {}
    sizes = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab")
    for (config_hash, variant), group in frame[frame.step_s.notna()].groupby(RESULT):
        row = group.iloc[0]
        model = ModelSpec(name="model", **{name: int(row[f"model.{name}"]) for name in sizes})
        shape = (int(row["dp"]), int(row["micro_batch"]), int(row["seq_len"]))
        flops = model_flops_per_step(model, *shape)
        per_rank = flops / group.step_s / int(row["world"])
        speeds[str(config_hash), str(variant)] = dict(zip(samples_of(group), per_rank, strict=True))
    return speeds


def _efficiency(
    kind: str,
    line: str,
    row: Any,
    base: dict[Sample, float],
    speeds: Mapping[tuple[str, str], dict[Sample, float]],
    fewest: int,
) -> Efficiency | None:
    mine = speeds[row.config_hash, row.variant]
    ratios = [mine[sample] / base[sample] for sample in sorted(mine.keys() & base.keys())]
    ratios = [ratio for ratio in ratios if math.isfinite(ratio)]
    if not ratios:
        return None
    figure = figure_of_rounds(ratios)
    return Efficiency(
        kind.partition(" ")[0],
        line,
        row.series,
        int(row.world),
        fewest,
        figure.value,
        figure.interval.low,
        figure.interval.high,
        figure.rounds,
    )


def _panel(
    ax: Axes,
    title: str,
    lines: Mapping[tuple[str, str], list[Efficiency]],
    shown: Mapping[str, Look],
) -> None:
    ax.set_title(title)
    ax.axhline(1, color="#444444", linewidth=0.8)
    if not lines:
        nothing_here(ax, "no such configurations in these results")
        return
    worlds: set[int] = set()
    for (series, _), found in lines.items():
        look = shown[series]
        fewest = found[0].fewest
        x = [fewest, *(one.world for one in found)]
        y = [1.0, *(one.value for one in found)]
        below = [0.0, *(one.value - one.low for one in found)]
        above = [0.0, *(one.high - one.value for one in found)]
        worlds.update(x)
        ax.errorbar(
            x,
            y,
            yerr=[below, above],
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markersize=4,
            markerfacecolor=look.colour if look.filled else "white",
            capsize=2,
            linewidth=1.2,
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(worlds), [str(world) for world in sorted(worlds)])
    ax.minorticks_off()
    ax.set_xlabel("ranks")
    ax.set_ylim(bottom=0)
    ax.grid(True, axis="y")
