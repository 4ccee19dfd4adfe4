"""Trials of the scenario `capacity`: their searches as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.details import rows_with_details
from analysis.selection import text_of
from analysis.table import VARIANT, row_axes

ONLY_LINE = "longest sequence"
"""What a frontier's line is called where it is the only one."""

SPLIT = ("sp", "dp", "world")
"""Axes that a line of the frontier runs over."""


def searches(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per search: the axes of `frame`, and what was found [tokens].

    `longest` trained (0: nothing did), `shortest_failed` did not (missing: none was found),
    `predicted` is theory's longest, `line` names what tells the frontier's lines apart: every
    axis that varies but sp, so that with sp and round it names a search.
    """
    every = [
        (row, _search(record["details"]))
        for row, record in rows_with_details(folder, frame, "capacity")
    ]
    rows = frame[frame.scenario == "capacity"]
    names = line_axes(rows)
    table = pd.DataFrame(
        [{**row, **found, "line": _line(row, names)} for row, found in every],
        columns=None if every else [*frame, *_search({}), "line"],
    )
    table = table.astype(frame.dtypes.to_dict())
    order = ["line", "sp", "round", "started"]
    return table.sort_values(order, kind="stable").reset_index(drop=True)


def line_axes(frame: pd.DataFrame) -> list[str]:
    """The axes that tell lines of the frontier apart: those that vary, but the split of the ranks.

    The number of ranks is among them where some sp was searched on several.
    """
    names = [name for name in row_axes(frame) if name not in SPLIT]
    if (frame.groupby("sp").world.nunique() > 1).any():
        names.append("world")
    return sorted(names, key=lambda name: name != "environment")


def attempts(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per attempt that trained: what was predicted, by component, and measured [bytes].

    `line` is that of `searches`.
    """
    rows, names = [], line_axes(frame[frame.scenario == "capacity"])
    for row, record in rows_with_details(folder, frame, "capacity"):
        for one in record["details"].get("attempts", []):
            if one["peak_bytes"] is not None:
                rows.append(
                    {
                        "trial_id": record["trial_id"],
                        "line": _line(row, names),
                        "sp": record["config"]["sp"],
                        "seq_len": one["seq_len"],
                        "measured": one["peak_bytes"],
                        "moment": one["predicted"]["moment"],
                        **one["predicted"]["components"],
                    }
                )
    return pd.DataFrame(rows)


def _search(details: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: details.get(name) for name in ("longest", "shortest_failed", "resolution")}
    tried = details.get("attempts", [])
    fitted = [one["peak_bytes"] for one in tried if one["peak_bytes"] is not None]
    return {
        **kept,
        "predicted": details.get("predicted"),
        "attempts": len(tried),
        "limit_held": max(fitted, default=None),
    }


def _line(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(filter(None, (_word(name, row[name]) for name in names))) or ONLY_LINE


def _word(name: str, value: Any) -> str:
    if name == "model.activation_checkpointing":
        return "checkpointing" if value else "no checkpointing"
    if name in ("environment", VARIANT):
        return str(value)
    if name == "memory_limit" and value == value:
        return f"memory_limit={value / 2**20:,.4g} MiB"
    return f"{name.removeprefix('model.')}={text_of(value)}"
