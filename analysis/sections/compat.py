"""The matrix of `compat`: DeepSpeed by torch, what each ZeRO stage came to, and what was said."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from rich.table import Table
from rich.text import Text

from analysis.compat import Matrix, Outcome, Pair, in_order, matrices, stages_text, summary
from analysis.table import STYLES, closing_line, variant_notes
from bench.console import Console

NOTEBOOKS = ("compat",)

MOST_LINES = 6
"""Of one message."""
KIND_STYLES = {**STYLES, "ran": "green"}


def show(folder: Path, frame: pd.DataFrame, console: Console) -> None:
    """Print each matrix, the messages behind it, and the closing line."""
    console.print("Which DeepSpeed runs on which torch, by ZeRO stage", style="bold")
    for matrix in matrices(folder, frame):
        if matrix.variant:
            console.print(matrix.variant, style="bold", highlight=False)
        numbers = numbered(matrix)
        console.print(_table(matrix, numbers))
        for line in messages(matrix, numbers):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if frame.emulated.any():
        console.print(
            "torch's NCCL code path emulated on gloo", style="dim", markup=False, highlight=False
        )
    for line in variant_notes(frame):
        console.print(line, style="dim", markup=False, highlight=False)
    console.print(closing_line(frame), highlight=False)


def sentences(folder: Path, frame: pd.DataFrame) -> list[str]:
    """How many pairs run everywhere, then what failed where."""
    found = matrices(folder, frame)
    said = [
        f"{line.partition('] ')[2]}."
        for matrix in found
        for line in messages(matrix, numbered(matrix))
        if line.startswith("[")
    ]
    return [f"{summary(found)}.", *said]


def numbered(matrix: Matrix) -> dict[Outcome, int]:
    """A number for everything that failed."""
    return {outcome: number for number, outcome in enumerate(matrix.failures(), start=1)}


def cell_lines(
    cell: Mapping[int | None, tuple[Outcome, ...]], numbers: Mapping[Outcome, int]
) -> list[tuple[str, Outcome]]:
    """`ZeRO 0–2 ok`, `ZeRO 3 backward: RuntimeError [1]`: stages with the same outcome together."""
    together: dict[Outcome, list[int | None]] = {}
    for zero, outcomes in cell.items():
        for outcome in outcomes:
            together.setdefault(outcome, []).append(zero)
    lines = []
    for outcome, stages in together.items():
        mark = f" [{numbers[outcome]}]" if outcome in numbers else ""
        where = "" if stages == [None] else f"{stages_text(stages)} "
        lines.append((f"{where}{outcome.text}{mark}", outcome))
    return lines


def messages(matrix: Matrix, numbers: Mapping[Outcome, int]) -> list[str]:
    """`[1] backward: RuntimeError, torch 2.2.2 with DeepSpeed 0.18.6 (ZeRO 1–3)` and its text."""
    lines = []
    for outcome, places in matrix.failures().items():
        stages: dict[Pair, list[int | None]] = {}
        for pair, zero in places:
            stages.setdefault(pair, []).append(zero)
        where = "; ".join(_place(pair, found) for pair, found in stages.items())
        lines.append(f"[{numbers[outcome]}] {outcome.text}: {where}")
        said = outcome.message.strip().splitlines()
        lines += [textwrap.indent(line.strip(), "    ") for line in said[:MOST_LINES]]
        if len(said) > MOST_LINES:
            lines.append(f"    … {len(said) - MOST_LINES} more lines: see the record")
    return lines


def _place(pair: Pair, stages: list[int | None]) -> str:
    at = "" if stages == [None] else f" ({stages_text(stages)})"
    return f"torch {pair.torch} with DeepSpeed {pair.deepspeed}{at}"


def _table(matrix: Matrix, numbers: Mapping[Outcome, int]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("DeepSpeed")
    for torch in matrix.torches:
        table.add_column(f"torch {torch}")
    tried = set(in_order(matrix.cells))
    for deepspeed in matrix.deepspeeds:
        cells = []
        for torch in matrix.torches:
            pair = Pair(torch, deepspeed)
            cells.append(_cell(matrix, pair, numbers) if pair in tried else Text("-", "dim"))
        table.add_row(deepspeed, *cells)
    return table


def _cell(matrix: Matrix, pair: Pair, numbers: Mapping[Outcome, int]) -> Text:
    lines = [
        Text(text, KIND_STYLES.get(outcome.kind, "red"))
        for text, outcome in cell_lines(matrix.cells[pair], numbers)
    ]
    return Text("\n").join(lines)
