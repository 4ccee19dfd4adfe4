"""Results folders as pandas frames: the public way to records for tables and notebooks.

from analysis.frame import load
load("results/quick").groupby(["environment", "loss"]).tokens_per_s.median()
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.columns import AXES, RESULTS, Column, Content
from analysis.reading import AnalysisError, Rows, lines_of, read, whole
from bench.record_files import record_files

__all__ = ["SAMPLE_COLUMNS", "AnalysisError", "load", "records", "samples"]

SAMPLE_COLUMNS = {
    "trial_id": "names the record",
    "config_hash": "identity of the configuration",
    "round": "index of the repetition",
    "rank": "0 to world-1",
    "step": "index of the step, warm-up included",
    "warmup": "whether the step is part of the warm-up; only `step` is timed there",
    "phase": "`step` for the whole, or a part of it: forward, aggregate, backward, optimizer",
    "seconds": "what this rank took [s]",
}
"""Columns of `samples` and their meaning."""


def load(folder: Path | str) -> pd.DataFrame:
    """One row per trial of a results folder; `analysis.columns.COLUMNS` documents each column.

    Of several attempts at a trial the latest counts; of the same attempt by two sweeps, the one
    that began first. `attrs["skipped"]` names the lines that are no record (truncated, another
    schema), `attrs["superseded"]` counts the records that do not count, `attrs["folder"]`
    is where the files lie that records name.

    Raises AnalysisError when the folder is missing or holds no record.
    """
    rows, skipped = read(Path(folder))
    counted = _counted(_typed(rows.results, RESULTS))
    frame = counted.join(_axes_frame(rows.axes), on="config_hash")
    frame.attrs["folder"] = str(folder)
    frame.attrs["skipped"] = skipped
    frame.attrs["superseded"] = len(rows.results["trial_id"]) - len(frame)
    return frame


def samples(folder: Path | str) -> pd.DataFrame:
    """One row per rank, step and phase of the trials that `load` counts: `SAMPLE_COLUMNS`.

    Raises AnalysisError when the folder is missing or holds no record.
    """
    values: dict[str, list[Any]] = {name: [] for name in SAMPLE_COLUMNS}
    for record in records(folder):
        for sample in _samples_of(record):
            for name, value in zip(SAMPLE_COLUMNS, sample, strict=True):
                values[name].append(value)
    table = pd.DataFrame(values)
    return table.astype(dict.fromkeys(("trial_id", "config_hash", "phase"), "category"))


def records(folder: Path | str, frame: pd.DataFrame | None = None) -> Iterator[Content]:
    """The whole records of the trials that `load` counts: results/README.md says what is in them.

    `frame` is what `load` returned, where the caller has it already.
    Raises AnalysisError when the folder is missing or holds no record.
    """
    frame = load(folder) if frame is None else frame
    counted = set(zip(frame.trial_id, frame.started, strict=True))
    for path in record_files(Path(folder)):
        for line in lines_of(whole(path), Rows()):
            identity = (line.results["trial_id"], _timestamp(line.results["started"]))
            if identity in counted:
                counted.discard(identity)
                yield line.content


def _typed(values: Mapping[str, Any], columns: Mapping[str, Column]) -> pd.DataFrame:
    """`values` by column, with the documented dtypes."""
    typed = {}
    for name, column in columns.items():
        if name == "started":
            dates = pd.to_datetime(values[name], utc=True, format="ISO8601", errors="coerce")
            typed[name] = pd.Series(dates, dtype=column.dtype)
        else:
            typed[name] = pd.Series(values[name], dtype=column.dtype)
    return pd.DataFrame(typed)


def _axes_frame(axes: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row per configuration hash; a column for each axis and each free dictionary entry."""
    rows = list(axes.values())
    frame = _typed({name: [row[name] for row in rows] for name in AXES}, AXES)
    for name in sorted({name for row in rows for name in row} - set(AXES)):
        frame[name] = pd.Series([row.get(name) for row in rows], dtype="object")
    return frame.set_index(pd.Index(axes, dtype="str", name="config_hash"))


def _counted(frame: pd.DataFrame) -> pd.DataFrame:
    """One record per configuration and round: the latest attempt, then the first that began."""
    ordered = frame.sort_values(["attempt", "started"], ascending=[False, True], kind="stable")
    counted = ordered.drop_duplicates(["config_hash", "round"])
    return counted.sort_values("started", kind="stable").reset_index(drop=True)


def _samples_of(record: Content) -> Iterator[tuple[Any, ...]]:
    """Rows of `SAMPLE_COLUMNS`."""
    identity = (record["trial_id"], record["config_hash"], record["round"])
    for rank in record["samples"]:
        warmup = len(rank["warmup_s"])
        for step, seconds in enumerate(rank["warmup_s"]):
            yield (*identity, rank["rank"], step, True, "step", seconds)
        for phase, series in (("step", rank["step_s"]), *rank["phases_s"].items()):
            for step, seconds in enumerate(series, start=warmup):
                yield (*identity, rank["rank"], step, False, phase, seconds)


def _timestamp(text: str) -> pd.Timestamp:
    return pd.to_datetime(text, utc=True, format="ISO8601", errors="coerce")
