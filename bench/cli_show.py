"""What several commands show of a results folder: the answer, the evidence below it, the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from bench.cli_errors import one_line
from bench.cli_predict import contradictions
from bench.cli_reading import loaded
from bench.controller.problem import ControllerProblem
from bench.printable import one_line as one_line_of

if TYPE_CHECKING:
    import pandas as pd

INTERRUPTED = 130
INCOMPLETE = 1
"""Exit code of a report with a part that could not be made."""


def answer(folder: Path, again: Sequence[str] = (), across_machines: bool = False) -> pd.DataFrame:
    """Print what a person acts on, then the tables; returns what was read.

    `again` is the command that made the folder, where it is known.
    """
    from analysis import audit_table, sections, table
    from analysis.audit import is_audit
    from analysis.frame import AnalysisError
    from analysis.headline import headline, render
    from bench.console import Console

    console = Console()
    with one_line(AnalysisError):
        frame = loaded(folder, across_machines)
        render(headline(folder, frame, again), console)
        rest = frame[~frame.scenario.isin(sections.found(frame))]
        if len(rest):
            (audit_table if is_audit(rest) else table).render(rest, console)
        sections.show(folder, frame, console)
        for text in contradictions(frame):
            console.print(f"Impossible on this machine: {text}.", highlight=False)
    return frame


def comparisons_in_words(folder: Path, frame: pd.DataFrame) -> None:
    """Tell what the natural comparisons of a folder say; `frame` is what was read of it."""
    from rich.padding import Padding
    from rich.text import Text

    from analysis.answers import all_answers
    from bench.console import Console

    console = Console()
    for one in all_answers(folder, frame):
        typer.echo(f"\n{one.sides}:")
        for sentence in one.sentences:
            if console.is_terminal:  # lines break between words there
                console.print(Padding(Text(sentence), (0, 0, 0, 2)))
            else:
                typer.echo(f"  {sentence}")


def failures(folder: Path) -> None:
    """Print every way in which trials failed, with its trials, tracebacks and logs."""
    from analysis.evidence import gather
    from analysis.frame import AnalysisError

    with one_line(AnalysisError):
        frame = loaded(folder)
        found = gather(folder, frame).failures
    for failure in found:
        trials = "trial" if failure.count == 1 else "trials"
        typer.echo(f"{failure.status} {failure.what} ({failure.count} {trials})")
        if failure.reason:
            typer.echo(f"  {failure.reason}")
        for where, names in failure.trials.items():
            typer.echo(f"  {where}  {', '.join(names)}")
        for text in failure.texts:
            body = "\n".join(f"    {line}" for line in text.body.splitlines())
            typer.echo(f"  {text.heading}\n{body}" if body else f"  {text.heading}")
        for log in failure.logs[:1]:
            typer.echo(f"  output of the ranks: {folder / log}")
        for why in failure.refused[:1]:
            typer.echo(f"  output of the ranks: {why}")
        typer.echo()
    if not found:
        typer.echo("every trial is ok")


def report(
    folder: Path,
    output: Optional[Path],
    frame: Optional[pd.DataFrame] = None,
    across_machines: bool = False,
) -> None:
    """Make the report and say where it is; `frame` is what was read of the folder already."""
    from analysis.frame import AnalysisError
    from bench.console import Console

    with one_line(AnalysisError), Console().status("making the report"):
        from analysis.report import write

        if frame is None:
            frame = loaded(folder, across_machines)
        try:
            made = write(folder, output, frame)
        except KeyboardInterrupt:
            typer.echo("interrupted; no report was made", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (AnalysisError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if output is None and isinstance(cause, OSError):  # nobody chose that file
                again = f"then `spbench report {folder}` makes it; the records are complete"
                raise ControllerProblem.of(cause, folder / "report.html", again) from error
            raise
    typer.echo(f"report: {made.path}")
    if made.broken:
        parts = "; ".join(made.broken)
        typer.echo(one_line_of(f"spbench: the report is not complete: {parts}"), err=True)
        raise typer.Exit(INCOMPLETE)
