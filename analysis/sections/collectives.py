"""The audit of collectives on a terminal: the matrix, and bandwidth as nccl-tests shows it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from analysis.collectives import (
    Matrix,
    Row,
    is_emulated,
    kind_of,
    matrix,
    summary,
    timings,
    variants_of,
)
from analysis.table import variant_notes
from bench.console import Console

NOTEBOOKS = ("collectives",)
STYLES = {"ok": "green", "no gradient": "yellow", "lost": "yellow"}
"""How a kind of outcome is coloured; whatever is not here is red."""
BANDWIDTH_WIDTH = 160
MATRIX_WIDTH = 80
"""Characters of the columns that say what was called."""
COLUMN_WIDTH = 18
"""Of each environment and communication."""


def show(folder: Path, frame: pd.DataFrame, console: Console) -> None:
    """The matrix of all trials in `frame`, then the bandwidths where they were measured."""
    found = matrix(folder, frame)
    console.print(Text("Collectives beside the analytic answer: value and gradient of every rank"))
    if found.rows:
        _wide(console, MATRIX_WIDTH + COLUMN_WIDTH * len(found.columns)).print(_table(found))
        console.print(Text(legend(found), style="dim"))
    if found.right:
        console.print(Text(f"ok in every case: {', '.join(found.right)}", style="green"))
    for trial in frame[frame.status != "ok"].itertuples():
        console.print(Text(f"{trial.environment} {trial.comm}: {trial.status}: {trial.reason}"))
    measured = timings(folder, frame)
    for column, rows in measured.groupby("column", sort=False):
        _wide(console, BANDWIDTH_WIDTH).print(bandwidth_table(str(column), rows))
    for line in variant_notes(frame):
        console.print(Text(line, style="dim"))
    console.print(Text(f"records: {folder}"))


def _wide(console: Console, width: int) -> Console:
    """Where tables are at most `width` wide: squeezed into a narrow terminal they say nothing."""
    return console.like(console.file, max(console.width, width))


def sentences(folder: Path, frame: pd.DataFrame) -> list[str]:
    """Who is silently wrong, and who is right in every case."""
    found = matrix(folder, frame)
    right = f"Right in every case: {', '.join(found.right)}." if found.right else ""
    return [f"{summary(found)}.", *([right] if right else [])]


def legend(found: Matrix) -> str:
    """What the cells mean."""
    text = (
        "sp: side by side on every sequence-parallel group. (2,3): on these ranks, ok on the "
        "others. gradient ×2: twice the right one. hang: waited for peers that never came. "
        f"No list: all upstream gradients ({', '.join(found.forms)}). No row: ok everywhere."
    )
    if any(any(row.awaited) for row in found.rows):
        text += (
            " used directly, wait_tensor(y), y.wait(): how the result y of a functional collective "
            "is awaited, where it matters."
        )
    if any(map(is_emulated, found.columns)):
        text += " nccl_over_gloo: torch's NCCL code path emulated on gloo."
    return text


def arguments(row: Row) -> tuple[str, str, str, str]:
    """A row's first four columns as text: collectives, variants, groups, upstream gradients."""
    return (
        ", ".join(row.collectives),
        variants_of(row),
        ", ".join(row.groups),
        ", ".join(row.forms),
    )


def bandwidth_table(column: str, rows: pd.DataFrame) -> Table:
    """Size, time, algorithm and bus bandwidth [GB/s], wrong elements: forward, then backward.

    What a group raised stands in place of the wrong elements; the numbers are of the others.
    """
    table = Table(
        title=f"{column}: bandwidth", box=box.SIMPLE, title_justify="left", padding=(0, 1)
    )
    for name in ("size (B)", "count", "type", "collective"):
        left = name in ("type", "collective")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for direction in ("forward", "backward"):
        for name in ("time\n(us)", "algbw\n(GB/s)", "busbw\n(GB/s)", "#wrong"):
            table.add_column(f"{direction}\n{name}", justify="right", no_wrap=True)
    keys = ["bytes", "count", "dtype", "collective"]
    for key, both in rows.groupby(keys, sort=False):
        by_direction = both.set_index("direction")
        cells = [_measured(by_direction, name) for name in ("forward", "backward")]
        size, count, dtype, collective = key
        table.add_row(f"{size}", f"{count}", str(dtype), str(collective), *cells[0], *cells[1])
    return table


def _measured(by_direction: pd.DataFrame, direction: str) -> tuple[str, str, str, str]:
    if direction not in by_direction.index:
        return ("", "", "", "")
    one = by_direction.loc[direction]
    raised = one.error.partition(":")[0] if isinstance(one.error, str) else None
    if raised and one.seconds != one.seconds:
        return ("", "", "", raised)
    return (
        f"{one.seconds * 1e6:.0f}",
        f"{one.algorithm_bandwidth / 1e9:.3f}",
        f"{one.bus_bandwidth / 1e9:.3f}",
        raised or f"{int(one.wrong)}",
    )


def _table(found: Matrix) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("collective", "arguments", "group", "upstream gradient"):
        table.add_column(name, overflow="fold")
    for column in found.columns:
        table.add_column(column.replace(" ", "\n"), overflow="fold")
    for row in found.rows:
        cells = [Text(cell, style=STYLES.get(kind_of(cell), "red")) for cell in row.cells]
        table.add_row(*arguments(row), *cells)
    return table
