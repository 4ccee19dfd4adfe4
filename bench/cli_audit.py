"""`spbench audit`: the matrix of gradients of a results folder."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli_errors import one_line


class AuditFormat(str, Enum):
    """What `audit` prints."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"


def audit(
    results: Annotated[Path, typer.Argument(help="A results folder.", metavar="RESULTS")],
    to: Annotated[AuditFormat, typer.Option("--format", help="Format.")] = AuditFormat.TABLE,
) -> None:
    """Show which gradients are right: aggregation and mask by ZeRO stage, for each version.

    Example: spbench audit results/gradient_audit
    """
    from analysis.audit_table import show
    from analysis.frame import AnalysisError, load

    with one_line(AnalysisError):
        frame = load(results)
        trained = frame[frame.scenario == "train"]
        if trained.empty:
            raise AnalysisError(
                f"results={results} holds no trial of scenario train, whose gradients are "
                "audited; run `spbench sweep +experiment=gradient_audit` or name another folder"
            )
        show(trained, to.value)
