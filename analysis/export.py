"""The tidy frame in formats that other tools read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.csv_text import csv_text
from analysis.frame import load
from analysis.output import output_file
from analysis.reading import AnalysisError
from bench.printable import json_escaped

FORMATS = ("csv", "parquet", "json")


def export(
    folder: Path, to: str, output: Path | None = None, frame: pd.DataFrame | None = None
) -> Path:
    """Write a folder's trials as `to` (csv, parquet or json: one object a row); returns the file.

    `frame` is what `load` returned, where the caller has it already. `output` defaults to
    `trials.<to>` in the results folder; a file there is replaced.
    Raises AnalysisError for an unknown format or an unusable folder, and what `output_file` raises.
    """
    if to not in FORMATS:
        raise AnalysisError(f"to={to} is not a format; allowed: {', '.join(FORMATS)}")
    frame = load(folder) if frame is None else frame
    path = output or folder / f"trials.{to}"
    with output_file(path) as partial:
        if to == "csv":
            partial.write_text(csv_text(frame), encoding="utf-8")
        elif to == "parquet":
            frame.to_parquet(partial, index=False)
        else:
            text = frame.to_json(orient="records", lines=True, date_format="iso", force_ascii=False)
            partial.write_text(json_escaped(text), encoding="utf-8")
    return path
