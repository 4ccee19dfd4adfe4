"""`spbench audit`: the matrix of gradients of a results folder."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli_errors import one_line
from bench.cli_gates import AllowUnchecked, refuse
from bench.cli_reading import loaded
from bench.printable import print_commands


class AuditFormat(str, Enum):
    """What `audit` prints."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"
    GITHUB = "github"
    JUNIT = "junit"


def audit(
    results: Annotated[Path, typer.Argument(help="A results folder.", metavar="RESULTS")],
    to: Annotated[
        AuditFormat,
        typer.Option(
            "--format", help="github: workflow commands; junit: XML, a case per configuration."
        ),
    ] = AuditFormat.TABLE,
    fail_if_wrong: Annotated[
        bool,
        typer.Option(
            "--fail-if-wrong",
            help="Exit code 1 where a gradient is scaled, wrong, missing or was not compared.",
        ),
    ] = False,
    allow_unchecked: AllowUnchecked = False,
) -> None:
    """Show which gradients are right: aggregation and mask by ZeRO stage, for each version.

    Example: spbench audit results/gradient_audit --fail-if-wrong
    """
    from analysis.audit_table import show
    from analysis.frame import AnalysisError
    from analysis.gate import Gates
    from analysis.gate_export import as_github, as_junit, suite_of_trials
    from analysis.identities import latest

    with one_line(AnalysisError):
        frame = loaded(results)
        trained = frame[frame.scenario == "train"]
        if trained.empty:
            raise AnalysisError(
                f"results={results} holds no trial of scenario train, whose gradients are "
                "audited; run `spbench sweep +experiment=gradient_audit` or name another folder"
            )
        gates = Gates(wrong=fail_if_wrong, allow_unchecked=allow_unchecked)
        # what was mended since is shown, and refuses nothing
        suite = suite_of_trials(f"audit of {results.absolute().name}", latest(trained), gates)
        if to is AuditFormat.GITHUB:
            print_commands(as_github([suite]))
        elif to is AuditFormat.JUNIT:
            typer.echo(as_junit([suite]))
        else:
            show(trained, to.value)
    refuse([one for case in suite.cases for one in case.objections])
