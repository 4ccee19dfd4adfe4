"""Results folders as pandas frames: the public way to records for tables and notebooks.

from analysis.frame import load
load("results/quick").groupby(["environment", "loss"]).tokens_per_s.median()
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.columns import AXES, RESULTS, VARIANT, Column, Content
from analysis.identities import PARTS, numbers, variants
from analysis.keys import keys_apart
from analysis.reading import AnalysisError, Line, Rows, lines_of, place_of, read, whole
from bench.identity import NOTHING
from bench.record import Status
from bench.record_files import record_files

__all__ = ["SAMPLE_COLUMNS", "AnalysisError", "load", "records", "rows_with_records", "samples"]

SAMPLE_COLUMNS = {
    "trial_id": "names the record",
    "config_hash": "identity of the configuration",
    "variant": "tells results of one configuration apart, as in `load`",
    "hostname": "machine of the controller",
    "round": "index of the repetition",
    "rank": "0 to world-1",
    "step": "index of the step, warm-up included",
    "warmup": "whether the step is part of the warm-up; only `step` is timed there",
    "phase": "`step` for the whole, or a part of it: forward, aggregate, backward, optimizer",
    "seconds": "what this rank took [s]",
}
"""Columns of `samples` and their meaning."""
_NAMES = ["trial_id", "config_hash", "round", "started", "hostname", *PARTS]
"""Columns that name one record of a folder."""


def load(folder: Path | str, across_machines: bool = False) -> pd.DataFrame:
    """One row per trial of a results folder; `analysis.columns.COLUMNS` documents each column.

    Trials with equal `analysis.identities.RESULT` are rounds of one result: of one configuration,
    code, versions and class of machine (of all classes together with `across_machines`). Of
    several attempts at a trial the latest counts; of the same attempt by two sweeps on a machine,
    the one that began first. `attrs["skipped"]` names the lines that are no record (truncated,
    another schema), `attrs["superseded"]` counts the records that do not count,
    `attrs["across_machines"]` is the argument, `attrs["joined_machines"]` has the classes of
    machines that were put together, `attrs["folder"]` is where the files lie that records name.

    Raises AnalysisError when the folder is missing or holds no record.
    """
    rows, skipped = read(Path(folder))
    every = _typed(rows.results, RESULTS)
    counted = _counted(every.assign(result=numbers(every, across_machines)))
    counted["variant"] = variants(counted, across_machines).astype(VARIANT["variant"].dtype)
    axes = _axes_frame(rows.axes, keys_apart(rows.axes, rows.configs))
    frame = counted.drop(columns="result").join(axes, on="config_hash")
    classes = sorted(set(frame.machine_class) - {NOTHING})
    frame.attrs["folder"] = str(folder)
    frame.attrs["skipped"] = skipped
    frame.attrs["superseded"] = len(every) - len(frame)
    frame.attrs["across_machines"] = across_machines
    frame.attrs["joined_machines"] = classes if across_machines and len(classes) > 1 else []
    return frame


def samples(folder: Path | str, frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per rank, step and phase of the trials that `load` counts: `SAMPLE_COLUMNS`.

    `frame` is what `load` returned, where the caller has it already; `attrs["skipped"]` is its.
    Raises AnalysisError when the folder is missing or holds no record.
    """
    frame = load(folder) if frame is None else frame
    variant, hostname = frame.variant.tolist(), frame.hostname.tolist()
    values: dict[str, list[Any]] = {name: [] for name in SAMPLE_COLUMNS}
    for position, line, _ in _counted_lines(Path(folder), frame):
        record = line.content
        names = (record["trial_id"], record["config_hash"], variant[position], hostname[position])
        for sample in _samples_of(record):
            row = (*names, record["round"], *sample)
            for name, value in zip(SAMPLE_COLUMNS, row, strict=True):
                values[name].append(value)
    table = pd.DataFrame(values)
    texts = ("trial_id", "config_hash", "variant", "hostname", "phase")
    table = table.astype(dict.fromkeys(texts, "category"))
    table.attrs["skipped"] = frame.attrs.get("skipped", [])
    return table


def records(folder: Path | str, frame: pd.DataFrame | None = None) -> Iterator[Content]:
    """The whole records of the trials that `load` counts: results/README.md says what is in them.

    `frame` is what `load` returned, where the caller has it already.
    Raises AnalysisError when the folder is missing or holds no record.
    """
    frame = load(folder) if frame is None else frame
    for _, line, _ in _counted_lines(Path(folder), frame):
        yield line.content


def rows_with_records(
    folder: Path | str, frame: pd.DataFrame
) -> Iterator[tuple[dict[str, Any], Content]]:
    """Each row of `load`'s frame with its whole record, in the order of the files."""
    for one in placed_records(folder, frame):
        yield one.row, one.record


class Placed(NamedTuple):
    """A record that counts, and where it stands."""

    position: int
    """Of its row in the frame."""
    row: dict[str, Any]
    record: Content
    place: str
    """`records-host.jsonl, line 3`."""


def placed_records(folder: Path | str, frame: pd.DataFrame) -> Iterator[Placed]:
    """The records of `load`'s frame with their rows and lines, in the order of the files."""
    rows = frame.to_dict("records")
    for position, line, path in _counted_lines(Path(folder), frame):
        row = {str(name): value for name, value in rows[position].items()}
        yield Placed(position, row, line.content, place_of(path, line.number))


def places(folder: Path | str, frame: pd.DataFrame) -> dict[int, str]:
    """File and line of each row of `load`'s frame, by its position."""
    return {
        position: place_of(path, line.number)
        for position, line, path in _counted_lines(Path(folder), frame)
    }


def _counted_lines(folder: Path, frame: pd.DataFrame) -> Iterator[tuple[int, Line, Path]]:
    """The lines that `frame` has rows of, each with its row's position and its file."""
    names = frame[_NAMES].astype({"hostname": object}).itertuples(index=False, name=None)
    positions = {_name(*name): position for position, name in enumerate(names)}
    for path in record_files(folder):
        for line in lines_of(whole(path), Rows()):
            values = {**line.results, "started": _timestamp(line.results["started"])}
            position = positions.pop(_name(*map(values.get, _NAMES)), None)
            if position is not None:
                yield position, line, path


def _name(*values: Any) -> tuple[Any, ...]:
    """A record's name, with None for what is missing."""
    return tuple(None if value != value else value for value in values)


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


def _axes_frame(axes: dict[str, dict[str, Any]], keys: dict[str, list[Any]]) -> pd.DataFrame:
    """One row per configuration hash; a column for each axis and each free dictionary entry."""
    rows = list(axes.values())
    frame = _typed({name: [row[name] for row in rows] for name in AXES}, AXES)
    for name in sorted({name for row in rows for name in row} - set(AXES)):
        frame[name] = pd.Series([row.get(name) for row in rows], dtype="object")
    for name, values in keys.items():
        frame[name] = pd.Series(values, dtype="object")
    return frame.set_index(pd.Index(axes, dtype="str", name="config_hash"))


def _counted(frame: pd.DataFrame) -> pd.DataFrame:
    """One record per result, machine and round: the latest attempt, then the first that began.

    What failed does not count beside a later attempt on another machine of the same class; what
    never ran, beside a later attempt of any kind.
    """
    ordered = frame.sort_values(["attempt", "started"], ascending=[False, True], kind="stable")
    counted = ordered.drop_duplicates(["result", "hostname", "machine_class", "round"])
    of_result = ordered.groupby(["result", "round"]).attempt.transform("max")
    of_round = ordered.groupby(["config_hash", "round"]).attempt.transform("max")
    latest = of_result.where(ordered.versions != NOTHING, of_round)
    kept = (ordered.status == Status.OK.value) | (ordered.attempt == latest)
    counted = counted[kept.loc[counted.index]]
    return counted.sort_values("started", kind="stable").reset_index(drop=True)


def _samples_of(record: Content) -> Iterator[tuple[Any, ...]]:
    """The columns of `samples` from `rank` on."""
    for rank in record["samples"]:
        warmup = len(rank["warmup_s"])
        for step, seconds in enumerate(rank["warmup_s"]):
            yield (rank["rank"], step, True, "step", seconds)
        for phase, series in (("step", rank["step_s"]), *rank["phases_s"].items()):
            for step, seconds in enumerate(series, start=warmup):
                yield (rank["rank"], step, False, phase, seconds)


def _timestamp(text: str) -> pd.Timestamp:
    return pd.to_datetime(text, utc=True, format="ISO8601", errors="coerce")
