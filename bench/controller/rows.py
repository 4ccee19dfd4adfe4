"""Reads what a rank noted on its way (`bench.worker.rank.Rank.row`), however it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from bench.controller.faults import Fault, mapping_in
from bench.plain import shown
from bench.record_files import rows_file
from bench.rows import read_rows


class Noted(NamedTuple):
    """What a rank noted, as far as a record can hold it."""

    rows: list[dict[str, Any]]
    faults: list[Fault]
    """What is wrong with the others."""
    left_out: int
    """Rows for which there was no room."""


def read(scratch: Path, rank: int) -> Noted:
    """The rows of `rank` in `scratch`."""
    try:
        lines, left_out = read_rows(rows_file(scratch, rank))
    except OSError:  # ranks, whose folder it is in, may have put anything there
        return Noted([], [Fault(rank, "its file of rows is no file that can be read")], 0)
    rows, faults = [], []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_row(line, rank))
        except ValueError as error:
            faults.append(f"row {number} {error}")
    if not faults:
        return Noted(rows, [], left_out)
    more = f" (and {len(faults) - 1} other rows)" if len(faults) > 1 else ""
    return Noted(rows, [Fault(rank, f"{faults[0]}{more}")], left_out)


def _row(line: bytes, rank: int) -> dict[str, Any]:
    """One row; ValueError that says why it is none."""
    row = mapping_in(line)
    if row.get("rank") != rank or isinstance(row["rank"], bool):
        raise ValueError(f"is not of this rank: {shown(row)}")
    return row
