"""`spbench doctor`: is sequence parallelism right on an interpreter that you already have?"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, cast

import typer

from bench.cli_errors import one_line
from bench.printable import json_text

if TYPE_CHECKING:
    from bench.console import Console
    from bench.controller.doctor import Question

NOT_RIGHT = 1
INTERRUPTED = 130
FILE_WIDTH = 120

Note = Callable[[str], None]


def doctor(
    python: Annotated[
        Optional[str],
        typer.Option(help="Python to audit. Default: the active one.", metavar="PATH"),
    ] = None,
    world: Annotated[int, typer.Option(help="Ranks.")] = 4,
    sp: Annotated[int, typer.Option(help="Sequence-parallel size.")] = 2,
    loss: Annotated[
        Optional[str], typer.Option(help="The loss aggregation you use.", metavar="NAME")
    ] = None,
    zero: Annotated[
        Optional[int], typer.Option(help="The ZeRO stage you use: audit no other.", metavar="0…3")
    ] = None,
    deepspeed_config: Annotated[
        Optional[Path],
        typer.Option(help="The DeepSpeed configuration (JSON) you train with.", metavar="FILE"),
    ] = None,
    reference: Annotated[
        str,
        typer.Option(
            help="Whose gradient is right: replica_mean, of the mean over replicas of each one's "
            "mean over its tokens, or token_mean, over all tokens of the batch.",
            metavar="NAME",
        ),
    ] = "replica_mean",
    comm: Annotated[
        str, typer.Option(help="auto, gloo, nccl or nccl_over_gloo.", metavar="NAME")
    ] = "auto",
    collectives: Annotated[
        bool, typer.Option(help="Whether to try the differentiable collectives, too.")
    ] = True,
    mesh_setup: Annotated[
        str, typer.Option(help="How DeepSpeed is told of it: docs/mesh-setups.md.", metavar="NAME")
    ] = "auto",
    to_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    self_test: Annotated[
        bool, typer.Option(help="Only prove that faults are seen on this interpreter.")
    ] = False,
) -> None:
    """Audit an interpreter that you already have: gradients, and the code to paste.

    Nothing is installed or written there. Exit code 0: with --loss, it gives the reference
    gradient (at --zero or the stage of --deepspeed-config, else at every ZeRO stage); without, a
    proven recipe exists for each stage. 1: not so, or with --self-test a fault escaped. 2: bad
    input. Whether spbench itself measures rightly on this machine: `spbench selfcheck`, of which
    --self-test is one row.

    Example: spbench doctor --python /path/to/python --loss all_gather --zero 1
    """
    from bench.controller import deepspeed_file
    from bench.controller import doctor as audits
    from bench.controller.gpus import visible_gpus
    from bench.controller.interpreter import EnvironmentProblem
    from bench.controller.messages import ConfigurationError

    with one_line(ConfigurationError, EnvironmentProblem):
        file = None if deepspeed_config is None else deepspeed_file.read(deepspeed_config)
        spec = audits.comm(comm, world, len(visible_gpus()))
        path = audits.interpreter(python)
        spec, instead = audits.usable_comm(spec, comm, path, world)
        question = audits.Question(
            path, world, sp, spec, loss, zero, collectives, cast(Any, reference), file, mesh_setup
        )
    if instead:
        typer.echo(f"spbench: {instead}", err=True)
    try:
        with one_line():
            right = _self_test(question, to_json) if self_test else _audit(question, to_json)
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was kept", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not right:
        raise typer.Exit(NOT_RIGHT)


def _audit(question: Question, to_json: bool) -> bool:
    from bench.controller.doctor import audit, trials_of
    from bench.controller.doctor_report import as_json, show

    steps = trials_of(question)
    with _running(steps) as (launch, note):
        found = audit(question, launch, note)
    if to_json:
        _print_json(as_json(found))
    else:
        show(found, console())
    return found.right


def _self_test(question: Question, to_json: bool) -> bool:
    from bench.controller.doctor_report import mutants_answer, show_mutants
    from bench.controller.self_test import mutations, self_test

    with _running(len(mutations())) as (launch, note):
        found = self_test(question, launch, note)
    caught = all(one.caught for one in found)
    if to_json:
        rows = [{**vars(one), "caught": one.caught} for one in found]
        _print_json({"mutations": rows, "right": caught, "answer": mutants_answer(found)})
    else:
        show_mutants(found, console())
    return caught


def console() -> Console:
    """Standard output; wide enough for the matrix where no terminal says how wide it is."""
    from bench.console import Console

    return Console() if sys.stdout.isatty() else Console(width=FILE_WIDTH)


@contextmanager
def _running(steps: int) -> Iterator[tuple[Callable[..., Any], Note]]:
    """What launches trials, and what tells the person who waits; logs are not kept."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from bench.console import Console
    from bench.controller import interruption
    from bench.controller.environments import provide
    from bench.controller.hosts import Hosts

    console = Console(stderr=True)
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with (
        interruption.once(),
        tempfile.TemporaryDirectory(prefix="spbench-doctor-") as folder,
        Progress(*columns, console=console, transient=True) as progress,
        Hosts(provide) as hosts,
    ):
        task = progress.add_task("starting the interpreter", total=steps)
        done = -1

        def note(text: str) -> None:
            nonlocal done
            done += 1
            progress.update(task, description=text, completed=done)
            if not console.is_terminal:
                typer.echo(f"{text} …", err=True)

        yield lambda trial: hosts.run(trial, Path(folder), progress.console.print), note


def _print_json(content: dict[str, Any]) -> None:
    typer.echo(json_text(content, indent=2))
