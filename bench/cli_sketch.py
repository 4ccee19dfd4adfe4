"""`spbench sketch`: the gradients of two trials beside each other, from any folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli_errors import one_line

FILE = "sketches/<trial_id>.npz of a results folder"


def sketch(
    candidate: Annotated[Path, typer.Argument(help=FILE, metavar="CANDIDATE")],
    baseline: Annotated[Path, typer.Argument(help=FILE, metavar="BASELINE")],
) -> None:
    """Compare two trials' gradients by their sketches, wherever and whenever they were made.

    The trials ran with gradient_check=sketch. Says the factor between the gradients and how much
    of the direction differs; exit code 1 where one is not a multiple of the other.

    Example: spbench sketch new/sketches/0123456789abcdef-r0-a0.npz old/sketches/…-r0-a0.npz
    """
    from analysis import sketch_words
    from analysis.sketch_files import SketchProblem, read_sketch
    from analysis.sketches import MATCH, SCALED, UNKNOWN, compare_sketches

    with one_line(SketchProblem):
        found = compare_sketches(read_sketch(candidate), read_sketch(baseline))
        if found.verdict == UNKNOWN:
            raise SketchProblem(found.reason)
    typer.echo(f"{found.verdict}: {sketch_words.sentence([found], 'BASELINE', 'CANDIDATE')}.")
    if found.worst_parameter is not None and found.worst_residual:
        typer.echo(
            f"largest residual: {100 * found.worst_residual:.2g} % in {found.worst_parameter}"
        )
    if found.verdict not in (MATCH, SCALED):
        raise typer.Exit(1)
