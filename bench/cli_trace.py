"""`spbench trace`: one profiled trial, where its time went, and the file that shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bench.cli_errors import one_line
from bench.cli_reading import loaded


def trace(
    results: Annotated[Path, typer.Argument(help="A results folder.", metavar="RESULTS")],
    trial: Annotated[
        Optional[str],
        typer.Argument(help="A trial's id or its beginning; none: the last.", metavar="[TRIAL]"),
    ] = None,
) -> None:
    """Show where the time of a profiled trial went, and the path of its trace.

    Example: spbench trace results/profile
    """
    from analysis.breakdown import one
    from analysis.breakdown_table import show
    from analysis.frame import AnalysisError
    from bench.console import Console

    with one_line(AnalysisError):
        show(results, one(results, trial, loaded(results)), Console())
