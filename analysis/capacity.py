"""Trials of the scenario `capacity`: their searches as tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frame import records

WHERE = ("environment", "model.activation_checkpointing", "model.loss_tiles", "zero", "loss")
"""What a line of the frontier has in common, besides the axes that do not vary."""


def searches(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per search: the axes of `frame`, and what was found [tokens].

    `longest` trained (0: nothing did), `shortest_failed` did not (missing: none was found),
    `predicted` is theory's longest, `line` names what tells the frontier's lines apart.
    """
    found = {
        record["trial_id"]: _search(record["details"])
        for record in records(folder, frame)
        if record["config"]["scenario"] == "capacity"
    }
    rows = frame[frame.trial_id.isin(list(found))]
    columns = ("longest", "shortest_failed", "resolution", "predicted", "attempts", "limit_held")
    table = rows.reset_index(drop=True)
    for name in columns:
        table[name] = [found[trial][name] for trial in table.trial_id]
    varying = [name for name in WHERE if name in table and table[name].nunique() > 1]
    table["line"] = [
        ", ".join(_word(name, row[name]) for name in varying) or "longest sequence"
        for _, row in table.iterrows()
    ]
    return table.sort_values(["line", "sp", "round"], kind="stable").reset_index(drop=True)


def attempts(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per attempt that trained: what was predicted, by component, and measured [bytes]."""
    rows = []
    for record in records(folder, frame):
        for one in record["details"].get("attempts", []):
            if one["peak_bytes"] is not None:
                rows.append(
                    {
                        "trial_id": record["trial_id"],
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


def _word(name: str, value: Any) -> str:
    if name == "model.activation_checkpointing":
        return "checkpointing" if value else "no checkpointing"
    if name == "environment":
        return str(value)
    return f"{name.removeprefix('model.')}={value}"
