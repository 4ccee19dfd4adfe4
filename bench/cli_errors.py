"""How the command line tells of an error that it knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

USER_ERROR = 2


@contextmanager
def one_line(*known: type[Exception]) -> Iterator[None]:
    """Tell the user what a known error says, without a traceback."""
    try:
        yield
    except known as error:
        typer.echo(f"spbench: {error}", err=True)
        raise typer.Exit(USER_ERROR) from error
