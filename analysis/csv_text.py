"""CSV for spreadsheets: what a cell says is text or a number, never a formula."""

from __future__ import annotations

import re

import pandas as pd

from bench.printable import printable

_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def csv_text(frame: pd.DataFrame) -> str:
    """`frame` as CSV with a header and without its index.

    Text that a spreadsheet would compute begins with an apostrophe; characters that act are
    written as escapes (`bench.printable`).
    """
    cells = frame.copy()
    for position, kind in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_datetime64_any_dtype(
            kind
        ):
            cells.isetitem(position, frame.iloc[:, position].map(_cell))
    cells.columns = [_cell(name) for name in frame.columns]
    return str(cells.to_csv(index=False))


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    computed = _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return printable(f"'{value}" if computed else value)
