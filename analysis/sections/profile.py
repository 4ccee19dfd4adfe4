"""Profiles: where the time of a step goes, how much communication is hidden, theory's bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from analysis.breakdown import profiled, shares
from analysis.breakdown_table import GAP, disagreements, hidden_part, hidden_share
from analysis.identities import RESULT
from analysis.table import VARIANT, closing_line, in_order, row_axes, variant_notes
from analysis.wording import span
from bench.console import Console

NOTEBOOKS = ("profile",)

HEADS = {
    "attention": "attention",
    "matrix": "matrix",
    "all_to_all": "all-to-all",
    "gradient_reduction": "gradients",
    "parameter_gathering": "parameters",
    "loss_aggregation": "loss",
    "optimizer": "optimizer",
    "waiting": "waiting",
    "rest": "rest",
    "idle": "idle",
}
"""Short names of the categories, in their order."""
COLUMN = 11
"""Characters that a category's column takes at most, the gap included."""
AXIS = 11
"""The same of an axis's, without the gap."""


def show(folder: Path, frame: pd.DataFrame, console: Console) -> None:
    """A row for each profiled trial: its largest parts, then what was hidden and what differs."""
    # with sp, dp says nothing new
    samples = [name for name in ("hostname", "round") if frame[name].nunique() > 1]
    axes = [name for name in row_axes(frame) if name != "dp"] + samples
    found = [(row, record["details"]) for row, record in profiled(folder, frame)]
    details = {_place(row): content for row, content in found}
    parts = {place: shares(content) for place, content in details.items()}
    keys = {name: _width(name, frame) for name in axes}
    room = (console.width - sum(keys.values()) - 2 * len("hidden ")) // COLUMN
    columns = _largest(list(parts.values()), max(room, 3))
    table = Table(
        box=None, pad_edge=False, padding=GAP, title="share of a step, mean over ranks [%]"
    )
    table.title_justify = "left"
    for name in axes:
        table.add_column(name.rpartition(".")[2], no_wrap=name != VARIANT, max_width=AXIS)
    for name in [*(HEADS.get(name, name) for name in columns), "other", "hidden"]:
        table.add_column(name, justify="right", no_wrap=True)
    ordered = frame.sort_values(axes, key=in_order(frame)) if axes else frame
    for row in ordered.to_dict("records"):
        cells = [str(row[name]) for name in axes]
        mine = parts.get(_place(row))
        if mine is None:
            table.add_row(*cells, Text(f"{row['status']}: {row['failure']}", "red"))
            continue
        percent = [f"{100 * mine.get(name, 0.0):.1f}" for name in columns]
        other = 100 * sum(value for name, value in mine.items() if name not in columns)
        behind = hidden_share(details[_place(row)])
        table.add_row(*cells, *percent, f"{other:.1f}", behind)
    console.print(table)
    for row, content in found:
        for line in disagreements(content):
            console.print(f"{row['trial_id']}: {line}", style="red", highlight=False)
    compared = [d["bytes_agree"] for d in details.values() if d["bytes_agree"] is not None]
    console.print(
        f"parts add up to the step within 2 % in {sum(d['adds_up'] for d in details.values())} of "
        f"{len(details)} trials; all-to-all bytes equal theory's in {sum(compared)} of "
        f"{len(compared)}; hidden: share of the transfer behind computation",
        style="dim",
        highlight=False,
    )
    for line in variant_notes(frame):
        console.print(line, style="dim", highlight=False)
    console.print(f"one trial in full: spbench trace {folder} TRIAL", style="dim", highlight=False)
    console.print(closing_line(frame), highlight=False)


def sentences(folder: Path, frame: pd.DataFrame) -> list[str]:
    """What takes most of a step, whether bytes are theory's, and what is hidden."""
    details = [record["details"] for _, record in profiled(folder, frame)]
    parts = [shares(one) for one in details]
    if not parts:
        return ["No trial was profiled to its end."]
    largest = sorted(_largest(parts, 3), key=lambda name: -_sum(parts, name))
    shown = {name: span([100 * part.get(name, 0.0) for part in parts], ".0f") for name in largest}
    said = [
        f"{HEADS[name].capitalize()}: {share} % of a step, mean over ranks."
        for name, share in shown.items()
    ]
    compared = [one["bytes_agree"] for one in details if one["bytes_agree"] is not None]
    if compared:
        said.append(
            f"The all-to-alls' calls and bytes are those of theory in {sum(compared)} of "
            f"{len(compared)} trials."
        )
    said += [line for one in details for line in disagreements(one)]
    behind = [100 * part for part in map(hidden_part, details) if part is not None]
    if behind:
        said.append(f"Of the transfer, {span(behind, '.0f')} % is hidden behind computation.")
    return said


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What names a trial among those of a frame."""
    return tuple(row[name] for name in (*RESULT, "hostname", "round"))


def _sum(parts: list[dict[str, float]], name: str) -> float:
    return sum(part.get(name, 0.0) for part in parts)


def _largest(parts: list[dict[str, float]], most: int) -> list[str]:
    """The categories that take most, in the usual order."""
    total: dict[str, float] = {}
    for one in parts:
        for name, value in one.items():
            total[name] = total.get(name, 0.0) + value
    largest = sorted(total, key=lambda name: -total[name])[:most]
    return [name for name in HEADS if name in largest]


def _width(axis: str, frame: pd.DataFrame) -> int:
    """Characters that an axis's column takes, the gap included."""
    texts = [axis.rpartition(".")[2], *frame[axis].astype(str)]
    return min(AXIS, max(map(len, texts))) + 1
