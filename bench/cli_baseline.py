"""`spbench baseline`: golden values of a sweep, written to a file and checked against another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bench.cli_errors import one_line
from bench.cli_gates import FAILED, share
from bench.cli_reading import loaded

baseline = typer.Typer(
    help="Golden values of a sweep in a file: times, peaks and gradients that must come again.\n\n"
    "Example: spbench baseline write golden.yaml results/quick, later: spbench baseline check "
    "golden.yaml results/quick",
    no_args_is_help=True,
    rich_markup_mode=None,
)

File = Annotated[Path, typer.Argument(help="YAML, or JSON where it ends in .json.", metavar="FILE")]
Results = Annotated[
    Optional[Path],
    typer.Argument(help="A results folder; none: that of the experiment.", metavar="[RESULTS]"),
]


@baseline.command()
def write(
    file: File,
    results: Results = None,
    time_tolerance: Annotated[str, typer.Option(help="Of the median tokens/s.")] = "10%",
    memory_tolerance: Annotated[str, typer.Option(help="Of the peak.")] = "5%",
) -> None:
    """Write the medians, peaks and gradients of a results folder to FILE.

    Example: spbench baseline write golden.yaml results/quick --time-tolerance 10%
    """
    from analysis import golden
    from analysis.frame import AnalysisError
    from analysis.identities import latest

    with one_line(AnalysisError):
        tolerances = {
            "tokens_per_s": share("--time-tolerance", time_tolerance) or 0.0,
            "peak_memory": share("--memory-tolerance", memory_tolerance) or 0.0,
        }
        content = golden.golden(latest(loaded(_folder(results, "quick"))), tolerances)
        golden.write(file, content)
    typer.echo(f"{len(content['points'])} points: {file}")


@baseline.command()
def check(file: File, results: Results = None) -> None:
    """Print what differs from the golden values in FILE; exit code 1 where anything does.

    Gradients must be the same; times and peaks within the file's tolerances. Fewer than 3 rounds,
    or another class of machine, say nothing about time.

    Example: spbench baseline check golden.yaml results/quick
    """
    from analysis import golden
    from analysis.frame import AnalysisError
    from analysis.identities import latest

    with one_line(AnalysisError):
        expected = golden.read(file)
        folder = _folder(results, expected["experiment"] or "quick")
        found = golden.check(expected, latest(loaded(folder)))
    for note in found.notes:
        typer.echo(f"note: {note.line}")
    for difference in found.differences:
        typer.echo(f"spbench: {difference.line}", err=True)
    different = len({one.place for one in found.differences})
    typer.echo(f"{found.points - different} of {found.points} points are as in {file}")
    if found.differences:
        raise typer.Exit(FAILED)


def _folder(results: Optional[Path], experiment: str) -> Path:
    """As given, or where a sweep of `experiment` keeps its records."""
    return results or Path(__file__).resolve().parents[1] / "results" / experiment
