"""`spbench selfcheck`: does spbench measure rightly here?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from bench.cli_doctor import INTERRUPTED, console
from bench.cli_errors import one_line
from bench.printable import json_text

if TYPE_CHECKING:
    from bench.console import Console
    from bench.controller.selfcheck.row import Result, Row
    from bench.controller.selfcheck.stand import Stand

MISSED = 1
MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("–", "dim")}


def selfcheck(
    python: Annotated[
        Optional[str],
        typer.Option(help="Python whose torch is used. Default: the active one.", metavar="PATH"),
    ] = None,
    rows: Annotated[
        Optional[str],
        typer.Option(help="Check only these rows, separated by commas.", metavar="NAMES"),
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="Print the rows and end.")] = False,
    to_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that spbench measures rightly on this machine: known answers, expected and seen.

    Runs on a GPU where the interpreter's torch can use one (some ten minutes), else on the CPU
    with fewer rows. Nothing is installed or written to that interpreter. To audit your own
    training, use `spbench doctor`; its --self-test is the row `judge` here.

    Exit code 0: no row missed. 1: a row missed. 2: bad input.

    Example: spbench selfcheck --python /path/to/python --rows fork,one_rank
    """
    from bench.controller.doctor import interpreter
    from bench.controller.interpreter import EnvironmentProblem
    from bench.controller.messages import ConfigurationError
    from bench.controller.selfcheck.rows import ROWS, chosen

    if names:
        for row in ROWS:
            typer.echo(f"{row.name:<16} {row.expected}{' (GPU)' if row.needs_gpu else ''}")
        return
    with one_line(ConfigurationError, EnvironmentProblem):
        wanted = chosen([name.strip() for name in rows.split(",")] if rows is not None else [])
        path = interpreter(python)
        gpus = _usable_gpus(path)
    try:
        with one_line():
            missed = _check(path, gpus, wanted, to_json)
    except KeyboardInterrupt:
        typer.echo("interrupted; the rows above are complete", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if missed:
        raise typer.Exit(MISSED)


def _usable_gpus(python: Path) -> tuple[str, ...]:
    from bench.controller import torch_gpus
    from bench.controller.gpus import visible_gpus

    return torch_gpus.seen_by(python).names if visible_gpus() else ()


def _check(python: Path, gpus: tuple[str, ...], rows: list[Row], to_json: bool) -> bool:
    """Run the rows and tell each as it ends; whether one missed."""
    from bench.controller.selfcheck.rows import check

    out, results = console(), []
    with _stand(python, gpus) as stand:
        where = stand.gpus[0] if stand.on_gpu else "CPU"
        without = "" if stand.on_gpu else ": rows that need a GPU are not run"
        if not to_json:
            head = f"{python} on {where}{without}"
            out.print(head, highlight=False, markup=False, soft_wrap=True)
        with _status() as waiting:
            waiting(rows[0].name)
            for index, result in enumerate(check(stand, rows)):
                results.append(result)
                if not to_json:
                    _show(result, out)
                if index + 1 < len(rows):
                    waiting(rows[index + 1].name)
    missed = [result for result in results if result.missed]
    if to_json:
        content = {"python": str(python), "device": where, "rows": [_fields(r) for r in results]}
        typer.echo(json_text({**content, "missed": len(missed)}, indent=2))
    else:
        out.print(f"\n{_answer(results)}", highlight=False, soft_wrap=True)
    return bool(missed)


@contextmanager
def _stand(python: Path, gpus: tuple[str, ...]) -> Iterator[Stand]:
    from bench.controller import interruption
    from bench.controller.environments import provide
    from bench.controller.hosts import Hosts
    from bench.controller.selfcheck.stand import Stand

    with (
        interruption.once(),
        tempfile.TemporaryDirectory(prefix="spbench-selfcheck-") as folder,
        Hosts(provide) as hosts,
    ):
        yield Stand(python, gpus, Path(folder), hosts, _sketch_scale)


@contextmanager
def _status() -> Iterator[Any]:
    """Tells the person who waits which row runs, on a terminal only."""
    from bench.console import Console

    console = Console(stderr=True)
    with console.status("starting the interpreter") as status:
        yield lambda name: status.update(f"{name} …")


def _show(result: Result, out: Console) -> None:
    """Two lines: the row and what is expected, and below it what was seen."""
    from rich.padding import Padding
    from rich.text import Text

    mark, colour = MARKS[result.seen.passed]
    head = Text(f"{mark} {result.row.name:<16}", colour)
    head.append(f"{result.seconds:6.1f} s  ", "dim").append(f"expected: {result.row.expected}")
    out.print(head)
    out.print(Padding(Text(f"seen: {result.seen.text}"), (0, 0, 0, 28)))


def _fields(result: Result) -> dict[str, Any]:
    return {
        "name": result.row.name,
        "expected": result.row.expected,
        "seen": result.seen.text,
        "passed": result.seen.passed,
        "seconds": round(result.seconds, 2),
    }


def _answer(results: list[Result]) -> str:
    """The last line: how many rows passed, and which missed."""
    passed = sum(result.seen.passed is True for result in results)
    unjudged = sum(result.seen.passed is None for result in results)
    missed = [result.row.name for result in results if result.missed]
    text = f"{passed} of {len(results)} rows passed"
    text += f", {unjudged} not judged here" if unjudged else ""
    if missed:
        text += (
            f"; missed: {', '.join(missed)} (again: spbench selfcheck --rows {','.join(missed)})"
        )
    return text


def _sketch_scale(candidate: Path, baseline: Path) -> Optional[float]:
    from analysis.sketch_files import compare_files

    return compare_files(candidate, baseline).scale
