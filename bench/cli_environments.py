"""`spbench env`: the environments that trials run in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bench.cli_errors import one_line

if TYPE_CHECKING:
    from bench.trial import EnvironmentSpec

CONF = Path(__file__).resolve().parents[1] / "conf"

environments = typer.Typer(
    help="The environments that trials run in.\n\nExample: spbench env sync torch-2.2",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Names = Annotated[
    Optional[list[str]], typer.Argument(help="Environments; none: all.", metavar="[NAME]…")
]


@environments.command("list")
def list_environments() -> None:
    """List the environments that conf/environment defines, and others that were made.

    Example: spbench env list
    """
    from rich.table import Table

    from bench.console import Console
    from bench.controller.environments import (
        EnvironmentProblem,
        cache_dir,
        installed,
        known_specs,
        status,
    )

    table = Table("name", "state", "versions", "size", box=None)
    with one_line(EnvironmentProblem):
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

    with one_line(EnvironmentProblem):
        for name, spec in _specs(names).items():
            interpreter = provide(spec, typer.echo)
            typer.echo(f"{name}: {interpreter.python}")


@environments.command("check")
def check_environments(names: Names = None) -> None:
    """Import torch and DeepSpeed in each environment and say what was found.

    Example: spbench env check torch-2.2
    """
    from bench.controller.environments import EnvironmentProblem, check, provide, status

    with one_line(EnvironmentProblem):
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
    with one_line(EnvironmentProblem):
        for name in names:
            key = name if name in keys else key_of(_specs([name])[name])
            gone = remove(key, typer.echo)
            typer.echo(f"{name}: {'removed' if gone else 'was not there'}")


@environments.command("prune")
def prune_environments(
    keep: Annotated[int, typer.Option(min=0, help="Ad-hoc environments to keep.")] = 2,
    days: Annotated[float, typer.Option(min=0, help="Age up to which references stay.")] = 30,
) -> None:
    """Remove ad-hoc environments, the least recently used first, and old references.

    Those that conf/environment names stay. What uv downloaded stays in uv's own cache:
    `uv cache prune` is for that.

    Example: spbench env prune --keep 0
    """
    from bench.controller.environments import EnvironmentProblem
    from bench.controller.prune import prune

    with one_line(EnvironmentProblem):
        for line in prune(CONF, keep, days):
            typer.echo(line)


def _specs(names: Optional[list[str]]) -> dict[str, EnvironmentSpec]:
    """The named environments; all when none is named."""
    from bench.controller.environments import EnvironmentProblem, known_specs
    from bench.controller.messages import unknown_option

    known = known_specs(CONF)
    for name in names or []:
        if name not in known:
            raise EnvironmentProblem(str(unknown_option("environment", name, known)))
    return {name: known[name] for name in names or known}
