"""What the terminal shows of searches for the longest sequence."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.capacity import searches

NOTEBOOKS = ("capacity",)


def show(folder: Path, frame: pd.DataFrame, console: Console) -> None:
    """A row per search: the longest sequence, measured and predicted [tokens]."""
    table = Table(title="The longest sequence that trains [tokens]", title_justify="left")
    table.add_column("configuration")
    for name in ("sp", "measured", "failed at", "predicted", "error", "attempts"):
        table.add_column(name, justify="right")
    table.add_column("status")
    for row in searches(folder, frame).itertuples():
        table.add_row(
            row.line,
            str(row.sp),
            _tokens(row.longest),
            _tokens(row.shortest_failed),
            _tokens(row.predicted),
            _error(row.longest, row.predicted),
            str(row.attempts),
            row.status if row.status == "ok" else f"{row.status}: {row.reason}",
        )
    console.print(table)


def _tokens(value: float | None) -> str:
    return "" if value is None or value != value else f"{int(value):,}"


def _error(longest: float | None, predicted: float | None) -> str:
    if not longest or predicted is None or predicted != predicted:
        return ""
    return f"{100 * (predicted / longest - 1):+.1f} %"
