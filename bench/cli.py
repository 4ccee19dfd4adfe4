"""`spbench`: the command line.

Everything heavy is imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bench import __version__

if TYPE_CHECKING:
    from bench.trial import EnvironmentSpec

FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130

CONF = Path(__file__).resolve().parents[1] / "conf"
_GROUPS = "\n\n".join(
    f"  {group.name}: {', '.join(sorted(path.stem for path in group.glob('*.yaml')))}"
    for group in sorted(CONF.glob("*/"))
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
environments = typer.Typer(
    help="The environments that trials run in.\n\nExample: spbench env sync torch-2.2",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(environments, name="env")

Results = Annotated[Path, typer.Argument(help="A results folder.", metavar="RESULTS")]
Names = Annotated[
    Optional[list[str]], typer.Argument(help="Environments; none: all.", metavar="[NAME]…")
]


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


@contextmanager
def _one_line(*known: type[Exception]) -> Iterator[None]:
    """Tell the user what a known error says, without a traceback."""
    try:
        yield
    except known as error:
        typer.echo(f"spbench: {error}", err=True)
        raise typer.Exit(USER_ERROR) from error


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
    from bench.record import RecordsError

    console = Console()
    run = Run(console)
    with _one_line(ConfigurationError, EnvironmentProblem, RecordsError):
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

    with _one_line(AnalysisError, OSError):
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

    with _one_line(AnalysisError):
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


@environments.command("list")
def list_environments() -> None:
    """List the environments that conf/environment defines, and others that were made.

    Example: spbench env list
    """
    from rich.console import Console
    from rich.table import Table

    from bench.controller.environments import (
        EnvironmentProblem,
        cache_dir,
        installed,
        known_specs,
        status,
    )

    table = Table("name", "state", "versions", "size", box=None)
    with _one_line(EnvironmentProblem):
        named = [status(spec) for spec in known_specs(CONF).values()]
    others = [one for one in installed() if one.key not in {known.key for known in named}]
    for one in named + others:
        size = f"{one.size_bytes / 2**30:.1f} GiB" if one.size_bytes else ""
        table.add_row(one.spec.name, one.state, one.versions, size)
    Console().print(table)
    for one in named:
        if one.note:
            typer.echo(f"{one.spec.name}: {one.note}")
    for one in others:
        typer.echo(f"{one.spec.name}: made ad hoc; `spbench env remove {one.key}` removes it")
    typer.echo(f"kept in {cache_dir()}")


@environments.command("sync")
def sync_environments(names: Names = None) -> None:
    """Make the environments that are missing (minutes, gigabytes).

    Example: spbench env sync torch-2.2 torch-2.13
    """
    from bench.controller.environments import EnvironmentProblem, provide

    with _one_line(EnvironmentProblem):
        for name, spec in _specs(names).items():
            interpreter = provide(spec, typer.echo)
            typer.echo(f"{name}: {interpreter.python}")


@environments.command("check")
def check_environments(names: Names = None) -> None:
    """Import torch and DeepSpeed in each environment and say what was found.

    Example: spbench env check torch-2.2
    """
    from bench.controller.environments import EnvironmentProblem, check, provide, status

    with _one_line(EnvironmentProblem):
        for name, spec in _specs(names).items():
            if names is None and status(spec).state != "ready":
                typer.echo(f"{name}: not made yet; spbench env sync {name}")
                continue
            found = check(provide(spec, typer.echo))
            numpy = f"; numpy does not work: {found.numpy_bridge}" if found.numpy_bridge else ""
            typer.echo(
                f"{name}: torch {found.torch} ({found.torch_s:.1f} s), deepspeed "
                f"{found.deepspeed} ({found.deepspeed_s:.1f} s), python {found.python}{numpy}"
            )


@environments.command("remove")
def remove_environments(
    names: Annotated[list[str], typer.Argument(help="Names or keys.", metavar="NAME…")],
) -> None:
    """Remove environments from the cache; the next sweep makes them again.

    Example: spbench env remove torch-2.3
    """
    from bench.controller.environments import EnvironmentProblem, installed, key_of, remove

    keys = {one.key for one in installed()}
    with _one_line(EnvironmentProblem):
        for name in names:
            key = name if name in keys else key_of(_specs([name])[name])
            gone = remove(key, typer.echo)
            typer.echo(f"{name}: {'removed' if gone else 'was not there'}")


def _specs(names: Optional[list[str]]) -> dict[str, EnvironmentSpec]:
    """The named environments; all when none is named."""
    from bench.controller.environments import EnvironmentProblem, known_specs
    from bench.controller.messages import unknown_option

    known = known_specs(CONF)
    for name in names or []:
        if name not in known:
            raise EnvironmentProblem(str(unknown_option("environment", name, known)))
    return {name: known[name] for name in names or known}


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

    from analysis.frame import AnalysisError, load
    from analysis.table import render

    with _one_line(AnalysisError):
        render(load(folder), Console())


def _sentences(folder: Path) -> None:
    """Tell what the natural comparisons of a folder say."""
    from analysis.answers import answers
    from analysis.frame import load

    for answer in answers(load(folder)):
        typer.echo(f"\n{answer.sides}:")
        for sentence in answer.sentences:
            typer.echo(f"  {sentence}")


def _report(folder: Path, output: Optional[Path]) -> None:
    from rich.console import Console

    from analysis.frame import AnalysisError

    with _one_line(AnalysisError), Console().status("making the report"):
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
