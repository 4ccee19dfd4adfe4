"""How verbs read a results folder: every line that is no record is named, once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

MOST_NAMED = 20
"""Lines that are named one by one."""

AcrossMachines = Annotated[
    bool,
    typer.Option("--across-machines", help="Put machines of different classes into one number."),
]
"""An option of verbs that show times."""


def loaded(folder: Path, across_machines: bool = False) -> pd.DataFrame:
    """`analysis.frame.load`; names on stderr the lines that are no record.

    Raises AnalysisError when the folder is missing or holds no record.
    """
    from analysis.frame import load

    frame = load(folder, across_machines)
    name_skipped(folder, frame.attrs["skipped"])
    return frame


def name_skipped(folder: Path, skipped: list[str]) -> None:
    """Name on stderr the lines of a folder's records files that are not counted."""
    for line in skipped[:MOST_NAMED]:
        typer.echo(f"spbench: not counted: {folder}/{line}", err=True)
    if len(skipped) > MOST_NAMED:
        more = len(skipped) - MOST_NAMED
        typer.echo(f"spbench: not counted: {more:,} more lines of {folder}", err=True)
