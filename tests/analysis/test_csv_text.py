"""CSV that spreadsheets read: text stays text, numbers stay numbers."""

from __future__ import annotations

import csv
import io

import pandas as pd
import pytest

from analysis.csv_text import csv_text


def cells(frame: pd.DataFrame) -> list[list[str]]:
    return list(csv.reader(io.StringIO(csv_text(frame))))


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-1+cmd|'/C calc'!A0", "'-1+cmd|'/C calc'!A0"),
        ("+x", "'+x"),
        ("\t=1", "'\t=1"),
        ("\r=1", r"'\r=1"),
        ("＝1", "'＝1"),
        ("-5", "-5"),
        ("+1.5e-3", "+1.5e-3"),
        ("torch-2.2", "torch-2.2"),
        ("a\x1b[2J", r"a\x1b[2J"),
    ],
)
def test_no_cell_is_a_formula(text: str, cell: str) -> None:
    assert cells(pd.DataFrame({"=name": [text]})) == [["'=name"], [cell]]


def test_numbers_stay_numbers() -> None:
    frame = pd.DataFrame({"a": [-1.5, 2.0], "b": [-1, 2], "c": [None, "=x"], "d": [-3, "x"]})
    assert cells(frame)[1:] == [["-1.5", "-1", "", "-3"], ["2.0", "2", "'=x", "x"]]
