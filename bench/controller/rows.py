"""Reads what a rank noted on its way (`bench.worker.rank.Rank.row`), however it ended."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from bench.controller.faults import Fault
from bench.plain import Unwritable, plain, shown
from bench.record_files import rows_file


def read(scratch: Path, rank: int) -> tuple[list[dict[str, Any]], list[Fault]]:
    """The rows of `rank` in `scratch` that a record can hold, and what is wrong with the others."""
    content = _content(rows_file(scratch, rank))
    if content is None:
        return [], [Fault(rank, "its file of rows is no file that can be read")]
    whole = content.rpartition(b"\n")[0]  # a rank that is killed may leave half a line
    rows, faults = [], []
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        try:
            rows.append(_row(line, rank))
        except ValueError as error:
            faults.append(f"row {number} {error}")
    if not faults:
        return rows, []
    more = f" (and {len(faults) - 1} other rows)" if len(faults) > 1 else ""
    return rows, [Fault(rank, f"{faults[0]}{more}")]


def _content(path: Path) -> bytes | None:
    """What `path` holds; None where the ranks, whose folder it is in, put something else there."""
    try:
        if not stat.S_ISREG(path.stat(follow_symlinks=False).st_mode):
            return None
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError:
        return None


def _row(line: bytes, rank: int) -> dict[str, Any]:
    """One row; ValueError that says why it is none."""
    try:
        row = plain(json.loads(line))
    except Unwritable as error:
        raise ValueError(f"cannot be recorded: {error}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"is no JSON: {shown(line)}") from None
    if not isinstance(row, dict):
        raise ValueError(f"is no mapping: {shown(row)}")
    if row.get("rank") != rank or isinstance(row["rank"], bool):
        raise ValueError(f"is not of this rank: {shown(row)}")
    return row
