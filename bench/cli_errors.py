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

    Exit code 2, but 3 where spbench itself cannot go on: a `ControllerProblem`, or whatever the
    system refuses that nobody told of. Not that nobody reads what is printed.
    """
    try:
        yield
    except ControllerProblem as problem:
        raise _told(problem, EXIT_CODE) from problem
    except known as error:
        raise _told(error, USER_ERROR) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        refused = ControllerProblem.of(error, None, "then run the same command again")
        raise _told(refused, EXIT_CODE) from error


def _told(error: Exception, code: int) -> typer.Exit:
    typer.echo(f"spbench: {_on_one_line(error)}", err=True)
    return typer.Exit(code)


def _on_one_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).split("\n"))
    return printable.one_line(" ".join(line for line in lines if line))
