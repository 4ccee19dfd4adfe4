"""`spbench`: the command line.

Everything heavy is imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from bench import __version__
from bench.cli_audit import audit
from bench.cli_doctor import doctor
from bench.cli_environments import CONF, environments
from bench.cli_errors import one_line
from bench.cli_predict import contradictions, predict
from bench.cli_selfcheck import selfcheck
from bench.cli_sketch import sketch
from bench.cli_trace import trace

FAILED = 1
INTERRUPTED = 130

_GROUPS = "\n\n".join(
    f"  {group.name}: {', '.join(sorted(path.stem for path in group.glob('*.yaml')))}"
    for group in sorted(CONF.glob("*/"))
    if group.name != "cluster"  # of `spbench predict`
)
_SWEEP_HELP = f"""Run a sweep: every combination of the axes, several rounds of it, one record each.

OVERRIDES are Hydra's: key=value sets a value, key=a,b makes an axis. Without +experiment=NAME
it is +experiment=quick, whose values the overrides replace. The same command again does only
what is missing.

Groups and their choices (key=choice):

{_GROUPS}

Other keys and their values: spbench sweep --cfg job. Hydra's own flags pass through
(--hydra-help lists them; --info defaults; --config-dir DIR adds your YAML files), and
eval "$(spbench sweep -sc install=bash)" completes overrides in bash.

Example: spbench sweep +experiment=single loss=all_gather,local sp=2,4 rounds=5 results=mine
"""

app = typer.Typer(
    name="spbench",
    help="Benchmark sequence parallelism: throughput, memory and gradient error over versions.\n\n"
    "Example: spbench sweep seq_len=512 rounds=1, then spbench show results/quick",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(environments, name="env")
app.command()(audit)
app.command()(trace)
app.command()(sketch)
app.command()(predict)
app.command()(doctor)
app.command()(selfcheck)

Results = Annotated[Path, typer.Argument(help="A results folder.", metavar="RESULTS")]


class Format(str, Enum):
    """What `export` writes."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"


class ComparisonFormat(str, Enum):
    """What `compare` prints."""

    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command(
    help=_SWEEP_HELP,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="",
)
def sweep(
    overrides: Annotated[
        Optional[list[str]], typer.Argument(help="Hydra's overrides and flags.")
    ] = None,
) -> None:
    """Hand the overrides to Hydra, then show the table."""
    from rich.console import Console

    from bench.controller.environments import EnvironmentProblem
    from bench.controller.messages import ConfigurationError
    from bench.controller.run import Run, start
    from bench.record_files import RecordsError

    console = Console()
    run = Run(console)
    with one_line(ConfigurationError, EnvironmentProblem, RecordsError):
        try:
            start(overrides or [], run)
        except KeyboardInterrupt:
            typer.echo("interrupted; records are complete, the same command resumes", err=True)
            raise typer.Exit(INTERRUPTED) from None
    if run.folder is not None:
        _answer(run.folder)
        _sentences(run.folder)
        typer.echo(f"records: {run.folder}")
        if run.report:
            _report(run.folder, None)


@app.command()
def show(results: Results) -> None:
    """Show the table of a results folder.

    Example: spbench show results/quick
    """
    _answer(results)


@app.command()
def export(
    results: Results,
    to: Annotated[Format, typer.Option("--to", help="Format.")] = Format.CSV,
    output: Annotated[
        Optional[Path], typer.Option("--output", "-o", help="File; default: in RESULTS.")
    ] = None,
) -> None:
    """Write one row per trial to a file.

    Example: spbench export results/quick --to parquet --output quick.parquet
    """
    from analysis.export import export as write
    from analysis.frame import AnalysisError

    with one_line(AnalysisError, OSError):
        typer.echo(write(results, to.value, output))


@app.command()
def compare(
    results: Results,
    baseline: Annotated[
        Optional[str], typer.Option(help="Axes and values: 'environment=torch-2.2 loss=local'.")
    ] = None,
    candidate: Annotated[
        Optional[str], typer.Option(help="The same axes at other values. Default: natural pairs.")
    ] = None,
    to: Annotated[
        ComparisonFormat, typer.Option("--format", help="Format.")
    ] = ComparisonFormat.TABLE,
    smallest: Annotated[str, typer.Option(help="Smallest difference that matters.")] = "2%",
    fail_if_slower: Annotated[
        Optional[str],
        typer.Option(help="Exit code 1 where the candidate is slower by this (5%)."),
    ] = None,
) -> None:
    """Compare two sides, point by point: speed, phases, memory, gradients, and what follows.

    Without --baseline and --candidate it compares what the folder was made for.

    Example: spbench compare results/quick --baseline "environment=torch-2.2
    loss=weighted_all_reduce" --candidate "environment=torch-2.13 loss=all_gather"
    """
    from analysis.compare import comparisons
    from analysis.comparison_table import show
    from analysis.frame import AnalysisError, load
    from analysis.gate import objections

    with one_line(AnalysisError):
        matters = _share("--smallest", smallest)
        limit = _share("--fail-if-slower", fail_if_slower) if fail_if_slower else None
        found = comparisons(load(results), baseline, candidate, matters)
    show(found, to.value)
    if limit is not None:
        against = [line for one in found for line in objections(one, limit)]
        for line in against:
            typer.echo(f"spbench: --fail-if-slower {fail_if_slower}: {line}", err=True)
        if against:
            raise typer.Exit(FAILED)


@app.command()
def report(
    results: Results,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="File; default: report.html in RESULTS."),
    ] = None,
) -> None:
    """Make one HTML file that needs no network: the answer, figures, tables, failures, versions.

    Example: spbench report results/quick
    """
    _report(results, output)


def _share(option: str, text: str) -> float:
    from analysis.frame import AnalysisError
    from bench.rounds import share

    try:
        return share(text)
    except ValueError as error:
        raise AnalysisError(
            f"{option} {text}: not a difference; allowed: above 0 % and below 100 %, such as 5%"
        ) from error


def _answer(folder: Path) -> None:
    from rich.console import Console

    from analysis import audit_table, sections, table
    from analysis.audit import is_audit
    from analysis.frame import AnalysisError, load

    console = Console()
    with one_line(AnalysisError):
        frame = load(folder)
        found = sections.found(frame)
        rest = frame[~frame.scenario.isin(found)]
        if len(rest):
            (audit_table if is_audit(rest) else table).render(rest, console)
        for scenario, section in found.items():
            section.show(folder, frame[frame.scenario == scenario], console)
        for text in contradictions(frame):
            console.print(f"Impossible on this machine: {text}.", highlight=False)


def _sentences(folder: Path) -> None:
    """Tell what the natural comparisons of a folder say."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from analysis.answers import all_answers
    from analysis.frame import load

    console = Console()
    for answer in all_answers(folder, load(folder)):
        typer.echo(f"\n{answer.sides}:")
        for sentence in answer.sentences:
            if console.is_terminal:  # lines break between words there
                console.print(Padding(Text(sentence), (0, 0, 0, 2)))
            else:
                typer.echo(f"  {sentence}")


def _report(folder: Path, output: Optional[Path]) -> None:
    from rich.console import Console

    from analysis.frame import AnalysisError

    with one_line(AnalysisError), Console().status("making the report"):
        from analysis.report import write

        try:
            path = write(folder, output)
        except KeyboardInterrupt:
            typer.echo("interrupted; no report was made", err=True)
            raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"report: {path}")


def main() -> None:
    """The entry point. Bash completion calls `spbench -sc`, without the subcommand's name."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["-sc"], ["--shell-completion"]):
        os.environ["COMP_LINE"] = os.environ.get("COMP_LINE", "").replace(" sweep", "", 1)
        arguments = ["sweep", *arguments]
    app(arguments, prog_name="spbench")


if __name__ == "__main__":
    main()
