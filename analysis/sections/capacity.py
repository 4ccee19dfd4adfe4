"""What the terminal shows of searches for the longest sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from analysis.capacity import searches
from analysis.table import variant_notes
from bench.console import Console

NOTEBOOKS = ("capacity",)


def show(folder: Path, frame: pd.DataFrame, console: Console) -> None:
    """A row per search: the longest sequence, measured and predicted [tokens]."""
    table = Table(
        title=Text("The longest sequence that trains [tokens]"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    found = searches(folder, frame)
    several = found.line.nunique() > 1
    if several:
        table.add_column("configuration")
    samples = [name for name in ("hostname", "round") if found[name].nunique() > 1]
    for name in samples:
        table.add_column("host" if name == "hostname" else name, no_wrap=True)
    for name in ("sp", "trains", "fails", "theory", "error", "tries"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status")
    for row in found.itertuples():
        table.add_row(
            *([row.line] if several else []),
            *(str(getattr(row, name)) for name in samples),
            str(row.sp),
            _tokens(row.longest),
            _tokens(row.shortest_failed),
            _tokens(row.predicted),
            _error(row.longest, row.predicted),
            str(row.attempts),
            Text(row.status if row.status == "ok" else f"{row.status}: {row.reason}"),
        )
    console.print(table)
    for line in variant_notes(frame):
        console.print(line, style="dim", highlight=False)


def sentences(folder: Path, frame: pd.DataFrame) -> list[str]:
    """A sentence per search."""
    found = searches(folder, frame)
    several = found.line.nunique() > 1
    return [_sentence(row, several) for row in found.itertuples()]


def _sentence(row: Any, several: bool) -> str:
    where = f"At sp={row.sp}{f', {row.line}' if several else ''}"
    if row.status != "ok":
        return f"{where}, the search ended with {row.status}: {row.reason}."
    fails, theory = _tokens(row.shortest_failed), _tokens(row.predicted)
    return (
        f"{where}, {_tokens(row.longest)} tokens train"
        + (f", {fails} run out of memory" if fails else "")
        + (f"; theory expects {theory}." if theory else ".")
    )


def _tokens(value: float | None) -> str:
    return "" if value is None or value != value else f"{int(value):,}"


def _error(longest: float | None, predicted: float | None) -> str:
    if not longest or predicted is None or predicted != predicted:
        return ""
    return f"{100 * (predicted / longest - 1):+.1f} %"
