"""What the commands with gates share: limits as people write them, and the end with exit code 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from analysis.gate import Objection

FAILED = 1

AllowUnchecked = Annotated[
    bool,
    typer.Option("--allow-unchecked", help="Let gradients pass that were not compared."),
]
"""An option of verbs that judge gradients."""


def share(option: str, text: Optional[str]) -> Optional[float]:
    """A relative difference such as `5%`; None where the option was not given.

    Raises AnalysisError for what is no difference.
    """
    from analysis.frame import AnalysisError
    from bench.rounds import share as parsed

    if text is None:
        return None
    try:
        return parsed(text)
    except ValueError as error:
        raise AnalysisError(
            f"{option} {text}: not a difference; allowed: above 0 % and below 100 %, such as 5%"
        ) from error


def refuse(found: Sequence[Objection]) -> None:
    """Say what speaks against it on stderr and end with exit code 1, if anything does."""
    for one in found:
        typer.echo(f"spbench: {one.gate}: {one.line}", err=True)
    if found:
        raise typer.Exit(FAILED)
