"""Profiles: where the time of a step goes, how much communication is hidden, theory's bytes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.breakdown import CATEGORIES, shares
from analysis.breakdown_table import disagreements, hidden
from analysis.frame import records
from analysis.table import closing_line, natural, varying_axes

NOTEBOOKS = ("profile",)

MOST_COLUMNS = 6
"""Categories with a column of their own, the largest; the others are summed up."""


def show(folder: Path, frame: pd.DataFrame, console: Console) -> None:
    """A row for each profiled trial: its largest parts, then what was hidden and what differs."""
    axes = varying_axes(frame)
    found = [r for r in records(folder, frame) if r["details"].get("breakdown")]
    parts = {r["trial_id"]: shares(r["details"]) for r in found}
    columns = _largest(list(parts.values()))
    table = Table(box=None, pad_edge=False, title="share of a step, mean over ranks [%]")
    table.title_justify = "left"
    for name in [*axes, *(["round"] if frame["round"].nunique() > 1 else [])]:
        table.add_column(name.rpartition(".")[2])
    for name in columns:
        table.add_column(CATEGORIES.get(name, name), justify="right")
    table.add_column("other", justify="right")
    table.add_column("hidden transfer", justify="right")
    ordered = frame.sort_values(axes, key=lambda c: c.map(natural)) if axes else frame
    details = {r["trial_id"]: r["details"] for r in found}
    for row in ordered.to_dict("records"):
        cells = [str(row[name]) for name in axes]
        if frame["round"].nunique() > 1:
            cells.append(str(row["round"]))
        mine = parts.get(row["trial_id"])
        if mine is None:
            table.add_row(*cells, f"[red]{row['status']}: {row['failure']}[/]")
            continue
        percent = [f"{100 * mine.get(name, 0.0):.1f}" for name in columns]
        other = 100 * sum(value for name, value in mine.items() if name not in columns)
        behind = hidden(details[row["trial_id"]]).partition(" of ")[0]
        table.add_row(*cells, *percent, f"{other:.1f}", behind)
    console.print(table)
    for trial, content in details.items():
        for line in disagreements(content):
            console.print(f"{trial}: {line}", style="red", highlight=False)
    compared = [d["bytes_agree"] for d in details.values() if d["bytes_agree"] is not None]
    console.print(
        f"parts add up to the step within 2 % in {sum(d['adds_up'] for d in details.values())} of "
        f"{len(details)} trials; all-to-all bytes equal theory's in {sum(compared)} of "
        f"{len(compared)}",
        style="dim",
        highlight=False,
    )
    console.print(f"one trial in full: spbench trace {folder} TRIAL", style="dim", highlight=False)
    console.print(closing_line(frame), highlight=False)


def _largest(parts: list[dict[str, float]]) -> list[str]:
    """The categories that take most, in the usual order."""
    total: dict[str, float] = {}
    for one in parts:
        for name, value in one.items():
            total[name] = total.get(name, 0.0) + value
    largest = sorted(total, key=lambda name: -total[name])[:MOST_COLUMNS]
    return [name for name in CATEGORIES if name in largest]
