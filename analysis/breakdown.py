"""What profiles say, as frames: `details` of records of scenario `profile`, a row for each fact.

All times are seconds per step, all sizes bytes per step; `trial_id` joins with
`analysis.frame.load`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.columns import Content
from analysis.details import misfit, rows_with_details
from analysis.frame import AnalysisError, load, records
from bench.record_files import RecordsError, within

CATEGORIES = {
    "attention": "attention",
    "matrix": "other matrix work",
    "all_to_all": "all-to-all",
    "gradient_reduction": "gradient reduction",
    "parameter_gathering": "parameter gathering",
    "loss_aggregation": "loss aggregation",
    "optimizer": "optimizer",
    "waiting": "waiting for others",
    "rest": "the rest",
    "idle": "idle",
}
"""What a step's time goes to, in the order of tables and figures, and its name for people."""

PARTS = {
    "breakdown": ("rank", "category", "seconds", "step_s", "sum_s", "off_by", "measured_step_s"),
    "collectives": (
        "rank",
        "category",
        "phase",
        "collective",
        "group",
        "calls",
        "bytes",
        "transfer_s",
        "waiting_s",
        "algorithm_bandwidth",
        "bus_bandwidth",
    ),
    "ulysses": (
        "rank",
        "pass",
        "calls",
        "expected_calls",
        "bytes",
        "expected_bytes",
        "agrees",
    ),
    "overlap": ("rank", "transfer_s", "hidden_s"),
}
"""Columns of each frame, besides `trial_id`."""


class Profiles(NamedTuple):
    """The facts of all profiled trials of a folder; `PARTS` has the columns."""

    breakdown: pd.DataFrame
    """One row per trial, rank and category. `off_by`: how far the categories' sum is from the
    step, as a share of it."""
    collectives: pd.DataFrame
    """One row per trial, rank and kind of collective."""
    ulysses: pd.DataFrame
    """One row per trial, rank and pass: counted beside theory."""
    overlap: pd.DataFrame
    """One row per trial and rank."""


def profiles(folder: Path | str, frame: pd.DataFrame | None = None) -> Profiles:
    """The profiles among the trials of `frame` (default: all of the folder's).

    Raises AnalysisError when the folder is missing or holds no record.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in PARTS}
    for _, record in profiled(folder, load(folder) if frame is None else frame):
        mark, details = {"trial_id": record["trial_id"]}, record["details"]
        rows["breakdown"] += [{**mark, **row} for row in _categories(details["breakdown"])]
        for name in ("collectives", "ulysses", "overlap"):
            rows[name] += [{**mark, **row} for row in details[name]]
    return Profiles(
        *(pd.DataFrame(rows[name], columns=["trial_id", *PARTS[name]]) for name in PARTS)
    )


def profiled(folder: Path | str, frame: pd.DataFrame) -> Iterator[tuple[dict[str, Any], Content]]:
    """Rows and records that have a profile, without those whose details do not fit."""
    for row, record in rows_with_details(folder, frame, "profile"):
        if record["details"].get("breakdown"):
            yield row, record


def one(folder: Path, wanted: str | None = None, frame: pd.DataFrame | None = None) -> Content:
    """The record of the profiled trial whose id begins with `wanted`; by default the last one.

    `frame` is what `load` returned, where the caller has it already.
    Raises AnalysisError when there is none, or more than one, or when it has no trace.
    """
    frame = load(folder) if frame is None else frame
    if wanted is None:
        of_profile = frame[(frame.scenario == "profile") & (frame.status == "ok")]
        if of_profile.empty:
            raise AnalysisError(
                f"{folder} has no profiled trial; `spbench sweep scenario=profile` makes some"
            )
        wanted = str(of_profile.sort_values("started").trial_id.iloc[-1])
    found = [name for name in frame.trial_id if name.startswith(wanted)]
    if len(found) != 1:
        some = ", ".join((found or list(frame.trial_id))[:5])
        many = f"{len(found)} trials" if found else "no trial"
        raise AnalysisError(
            f"trial={wanted}: {folder} has {many} of that beginning; such as {some}"
        )
    [content] = records(folder, frame[frame.trial_id == found[0]])
    path = content["details"].get("trace")
    why = misfit(content)
    if why is not None:
        raise AnalysisError(f"trial={found[0]} cannot be shown: {why}")
    if path is None or not content["details"].get("breakdown"):
        scenario, status = content["config"]["scenario"], content["status"]
        raise AnalysisError(
            f"trial={found[0]} has no trace (scenario {scenario}, status {status}); "
            "`spbench sweep scenario=profile` leaves one for every trial that is ok"
        )
    try:
        file = within(folder, path)
    except RecordsError as refused:
        raise AnalysisError(f"trial={found[0]}: its trace {refused}") from refused
    if not file.exists():
        raise AnalysisError(f"trial={found[0]}: its trace {file} is gone; run it again")
    return content


def shares(details: Content) -> dict[str, float]:
    """Share of the step [0..1] of each category that occurs, mean over ranks, in order."""
    total = dict.fromkeys(CATEGORIES, 0.0)
    for row in _categories(details["breakdown"]):
        total[row["category"]] = total.get(row["category"], 0.0) + row["seconds"]
    whole = sum(total.values())
    return {name: value / whole for name, value in total.items() if value}


def _categories(ranks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each rank and category."""
    for rank in ranks:
        same = {name: rank[name] for name in rank if name != "seconds"}
        for category, seconds in rank["seconds"].items():
            yield {**same, "category": category, "seconds": seconds}
