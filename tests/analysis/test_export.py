"""Exported files hold what the frame holds."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from analysis.export import export
from analysis.frame import AnalysisError, load
from tests import factories

READERS = {
    "csv": pd.read_csv,
    "parquet": pd.read_parquet,
    "json": lambda path: pd.read_json(path, lines=True),
}


@pytest.mark.parametrize("to", READERS)
def test_what_is_exported_is_read_again(tmp_path, to):
    factories.write(tmp_path, factories.ok(), factories.failed(round=1))
    path = export(tmp_path, to)
    assert path == tmp_path / f"trials.{to}"
    table = READERS[to](path)
    frame = load(tmp_path)
    assert list(table) == list(frame)
    assert table.tokens_per_s.tolist()[0] == 2048 and pd.isna(table.tokens_per_s[1])
    assert table.status.tolist() == ["ok", "error"]


def test_json_is_an_object_a_row(tmp_path):
    factories.write(tmp_path, factories.ok())
    row = json.loads(export(tmp_path, "json", tmp_path / "out.jsonl").read_text())
    assert (row["gradient_scale_label"], row["sp"]) == ("×1", 2)
    assert row["started"].startswith("2025-01-01T00:00:00")


def test_unknown_formats_and_unwritable_files_are_refused(tmp_path):
    factories.write(tmp_path, factories.ok())
    with pytest.raises(AnalysisError, match="to=xml is not a format; allowed: csv, parquet, json"):
        export(tmp_path, "xml")
    with pytest.raises(AnalysisError, match=r"none/out.csv cannot be written .*; choose another"):
        export(tmp_path, "csv", tmp_path / "none" / "out.csv")
