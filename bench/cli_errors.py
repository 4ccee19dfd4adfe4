"""How the command line tells of an error that it knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from bench import printable
from bench.controller.problem import EXIT_CODE, ControllerProblem

USER_ERROR = 2


@contextmanager
def one_line(*known: type[Exception]) -> Iterator[None]:
    """Tell the user what a known error says, without a traceback.

    Exit code 2, but 3 where spbench itself cannot go on, which every verb that runs trials knows.
    """
    try:
        yield
    except ControllerProblem as problem:
        typer.echo(f"spbench: {_on_one_line(problem)}", err=True)
        raise typer.Exit(EXIT_CODE) from problem
    except known as error:
        typer.echo(f"spbench: {_on_one_line(error)}", err=True)
        raise typer.Exit(USER_ERROR) from error


def _on_one_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).split("\n"))
    return printable.one_line(" ".join(line for line in lines if line))
