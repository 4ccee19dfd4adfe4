"""`spbench compare`: two sides, point by point, and gates for continuous integration."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from bench.cli_errors import one_line
from bench.cli_gates import AllowUnchecked, refuse, share
from bench.cli_reading import AcrossMachines, loaded
from bench.printable import print_commands


class ComparisonFormat(str, Enum):
    """What `compare` prints."""

    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"
    GITHUB = "github"
    JUNIT = "junit"


def compare(
    results: Annotated[Path, typer.Argument(help="A results folder.", metavar="RESULTS")],
    baseline: Annotated[
        Optional[str], typer.Option(help="Axes and values: 'environment=torch-2.2 loss=local'.")
    ] = None,
    candidate: Annotated[
        Optional[str], typer.Option(help="The same axes at other values. Default: natural pairs.")
    ] = None,
    baseline_results: Annotated[
        Optional[Path],
        typer.Option(
            help="Another results folder, whose trials are the baseline: the same configurations "
            "before and now. --baseline and --candidate then choose within each.",
            metavar="FOLDER",
        ),
    ] = None,
    to: Annotated[
        ComparisonFormat,
        typer.Option("--format", help="github: workflow commands; junit: XML, a case per point."),
    ] = ComparisonFormat.TABLE,
    smallest: Annotated[str, typer.Option(help="Smallest difference that matters.")] = "2%",
    fail_if_slower: Annotated[
        Optional[str],
        typer.Option(help="Exit code 1 where the candidate is slower by this (5%)."),
    ] = None,
    fail_if_more_memory: Annotated[
        Optional[str],
        typer.Option(help="Exit code 1 where the candidate's peak is larger by this (5%)."),
    ] = None,
    fail_if_wrong: Annotated[
        bool,
        typer.Option(
            "--fail-if-wrong",
            help="Exit code 1 where the candidate's gradient is scaled, wrong, missing or was not "
            "compared, whatever the baseline's is.",
        ),
    ] = False,
    fail_on_error: Annotated[
        bool,
        typer.Option(
            "--fail-on-error",
            help="Exit code 1 where a trial of the candidate failed or was not run.",
        ),
    ] = False,
    allow_unchecked: AllowUnchecked = False,
    across_machines: AcrossMachines = False,
) -> None:
    """Compare two sides, point by point: speed, phases, memory, gradients, and what follows.

    Without --baseline and --candidate it compares what the folder was made for.

    Example: spbench compare results/quick --baseline "environment=torch-2.2
    loss=weighted_all_reduce" --candidate "environment=torch-2.13 loss=all_gather"
    --fail-if-wrong --fail-if-slower 5%
    """
    from analysis.compare import comparisons
    from analysis.comparison_table import show
    from analysis.frame import AnalysisError
    from analysis.gate import Gates
    from analysis.gate_export import as_github, as_junit, suite_of

    with one_line(AnalysisError):
        matters = share("--smallest", smallest)
        assert matters is not None
        gates = Gates(
            slower=share("--fail-if-slower", fail_if_slower),
            more_memory=share("--fail-if-more-memory", fail_if_more_memory),
            wrong=fail_if_wrong,
            error=fail_on_error,
            allow_unchecked=allow_unchecked,
        )
        before = None
        if baseline_results is not None:
            before = loaded(baseline_results, across_machines)
        frame = loaded(results, across_machines)
        found = comparisons(frame, baseline, candidate, matters, before)
    suites = [suite_of(one, gates) for one in found]
    if to is ComparisonFormat.GITHUB:
        print_commands(as_github(suites))
    elif to is ComparisonFormat.JUNIT:
        typer.echo(as_junit(suites))
    else:
        show(found, to.value)
    refuse([one for suite in suites for case in suite.cases for one in case.objections])
