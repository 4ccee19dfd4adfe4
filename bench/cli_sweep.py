"""`spbench sweep`: run what Hydra composes, then show the answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bench.cli_environments import CONF
from bench.cli_errors import one_line
from bench.cli_gates import FAILED, AllowUnchecked, refuse
from bench.cli_show import INTERRUPTED, answer, comparisons_in_words, report
from bench.controller.problem import own_files

if TYPE_CHECKING:
    from bench.controller.run import Run

GATES = {"error": "--fail-on error", "wrong": "--fail-on wrong"}

_GROUPS = "\n\n".join(
    f"  {group.name}: {', '.join(sorted(path.stem for path in group.glob('*.yaml')))}"
    for group in sorted(CONF.glob("*/"))
    if group.name != "cluster"  # of `spbench predict`
)
HELP = f"""Run a sweep: every combination of the axes, several rounds of it, one record each.

OVERRIDES are Hydra's: key=value sets a value, key=a,b makes an axis. Without +experiment=NAME
it is +experiment=quick, whose values the overrides replace. The same command again does only
what is missing.

Exit code 1: nothing ran ok, or --fail-on names what happened. 2: the command is wrong, nothing
ran. 3: spbench itself could not go on (a full disk, a file that cannot be written); what ran has
its records, and the same command resumes.

Groups and their choices (key=choice):

{_GROUPS}

Other keys and their values: spbench sweep --cfg job. Hydra's own flags pass through
(--hydra-help lists them; --info defaults; --config-dir DIR adds your YAML files), and
eval "$(spbench sweep -sc install=bash)" completes overrides in bash.

Example: spbench sweep +experiment=single loss=all_gather,local sp=2,4 rounds=5 results=mine
"""


def sweep(
    overrides: Annotated[
        Optional[list[str]], typer.Argument(help="Hydra's overrides and flags.")
    ] = None,
    fail_on: Annotated[
        str,
        typer.Option(
            help="error,wrong or one of them: exit code 1 where a trial failed, or its gradient is "
            "scaled, wrong, missing or was not compared.",
            metavar="WHAT",
        ),
    ] = "",
    allow_unchecked: AllowUnchecked = False,
) -> None:
    """Hand the overrides to Hydra, then show the answer."""
    from bench.console import Console
    from bench.controller.environments import EnvironmentProblem
    from bench.controller.messages import ConfigurationError
    from bench.controller.run import Run, start
    from bench.record_files import RecordsError

    run = Run(Console())
    with one_line(ConfigurationError, EnvironmentProblem, RecordsError):
        gates = _gates(fail_on)
        try:
            start(overrides or [], run)
        except KeyboardInterrupt:
            typer.echo("interrupted; records are complete, the same command resumes", err=True)
            raise typer.Exit(INTERRUPTED) from None
    if run.folder is None:
        return
    with one_line(), own_files(run.folder):
        frame = answer(run.folder, overrides or [])
        comparisons_in_words(run.folder, frame)
        typer.echo(f"records: {run.folder}")
        if run.report:
            report(run.folder, None, frame)
        _end(run, run.folder, gates, allow_unchecked)


def _gates(fail_on: str) -> frozenset[str]:
    """What `--fail-on` names; raises `ConfigurationError` for anything else."""
    from bench.controller.messages import ConfigurationError, hint

    names = frozenset(name.strip() for name in fail_on.split(",") if name.strip())
    for name in sorted(names - set(GATES)):
        allowed = ", ".join(GATES)
        raise ConfigurationError(
            f"--fail-on {fail_on}: '{name}' is no gate; allowed: {allowed}{hint(name, GATES)}"
        )
    return names


def _end(run: Run, folder: Path, names: frozenset[str], allow_unchecked: bool) -> None:
    """Exit code 1 where nothing ran ok, or where a gate has something against the trials."""
    from analysis.frame import load
    from analysis.gate import Gates, objections_to
    from analysis.identities import latest

    if run.summary is None:  # a launcher ran the trials elsewhere
        return
    frame = latest(load(folder))
    frame = frame[frame.config_hash.isin(run.hashes)]
    gates = Gates(wrong="wrong" in names, error="error" in names, allow_unchecked=allow_unchecked)
    found = objections_to(frame, gates, GATES) if gates else []
    if not (frame.status == "ok").any():
        from analysis.failures import first_failure

        count = f"all {len(frame):,} trials" if len(frame) > 1 else "the one trial"
        typer.echo(f"spbench: nothing ran ok ({count}): {first_failure(frame)}", err=True)
        typer.echo(f"spbench: the rest: spbench show {folder} --failures", err=True)
        if not found:
            raise typer.Exit(FAILED)
    refuse(found)
