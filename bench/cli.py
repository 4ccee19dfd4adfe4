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

from bench import __version__, cli_show, cli_sweep
from bench.cli_audit import audit
from bench.cli_baseline import baseline
from bench.cli_compare import compare
from bench.cli_doctor import doctor
from bench.cli_environments import environments
from bench.cli_errors import one_line
from bench.cli_predict import predict
from bench.cli_reading import AcrossMachines, loaded
from bench.cli_selfcheck import selfcheck
from bench.cli_sketch import sketch
from bench.cli_trace import trace
from bench.printable import guard_streams

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
app.add_typer(baseline, name="baseline")
app.command(
    help=cli_sweep.HELP,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="",
)(cli_sweep.sweep)
app.command()(compare)
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


@app.command()
def show(
    results: Results,
    failures: Annotated[
        bool, typer.Option("--failures", help="What failed instead, with tracebacks and logs.")
    ] = False,
    across_machines: AcrossMachines = False,
) -> None:
    """Show the answer and the table of a results folder.

    Example: spbench show results/quick
    """
    if failures:
        cli_show.failures(results)
    else:
        cli_show.answer(results, across_machines=across_machines)


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

    with one_line(AnalysisError):
        typer.echo(write(results, to.value, output, loaded(results)))


@app.command()
def report(
    results: Results,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="File; default: report.html in RESULTS."),
    ] = None,
    across_machines: AcrossMachines = False,
) -> None:
    """Make one HTML file that needs no network: the answer, figures, tables, failures, versions.

    Example: spbench report results/quick
    """
    cli_show.report(results, output, across_machines=across_machines)


def main() -> None:
    """The entry point. Bash completion calls `spbench -sc`, without the subcommand's name."""
    guard_streams()
    arguments = sys.argv[1:]
    if arguments[:1] in (["-sc"], ["--shell-completion"]):
        os.environ["COMP_LINE"] = os.environ.get("COMP_LINE", "").replace(" sweep", "", 1)
        arguments = ["sweep", *arguments]
    app(arguments, prog_name="spbench")


if __name__ == "__main__":
    main()
