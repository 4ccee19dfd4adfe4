"""What failed, where, in words: ways to fail with their places, the most frequent first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.selection import text_of
from analysis.table import natural, varying_axes
from bench.record import Status

LEADING = ("loss", "environment")
"""Axes that a place begins with."""


class Way(NamedTuple):
    """One way to fail."""

    what: str
    """`IndexError in backward, ranks 2,3: tuple index out of range`."""
    where: str
    """`all_gather on torch-2.2 at sp=2`."""
    failed: int
    total: int
    """Trials of the configurations that failed so."""


def ways(frame: pd.DataFrame) -> list[Way]:
    """How trials of `analysis.frame.load`'s frame failed; what was refused is no failure."""
    failed = frame[~frame.status.isin([Status.OK.value, Status.UNSUPPORTED.value])]
    found = []
    for _, group in failed.groupby(["loss", "status", "failure"], sort=False, dropna=False):
        total = int(frame.config_hash.isin(group.config_hash).sum())
        found.append(Way(said(group.iloc[0]), place(group, frame), len(group), total))
    return sorted(found, key=lambda way: -way.failed)


def said(trial: Any) -> str:
    """What a trial that failed says: what, where, and the useful line of what was raised."""
    failure = str(trial.failure or trial.status)
    if not isinstance(trial.message, str):
        reason = trial.reason if isinstance(trial.reason, str) else ""
        return reason if failure in reason else failure
    return f"{failure}: {trial.message}"


def first_failure(frame: pd.DataFrame) -> str:
    """Where the first trial that failed was, and what it says; refused ones come last."""
    order = frame.assign(refused=frame.status == Status.UNSUPPORTED.value)
    failed = order[order.status != Status.OK.value].sort_values(["refused", "started"])
    first = failed.iloc[:1]
    return f"{place(first, frame)}: {said(first.iloc[0])}"


def place(chosen: pd.DataFrame, frame: pd.DataFrame, without: Sequence[str] = ()) -> str:
    """`all_gather on torch-2.2 at sp=2`: the axes that are narrower in `chosen` than in `frame`.

    Axes in `without` are left out.
    """
    narrow = [
        name
        for name in varying_axes(frame)
        if name not in (*LEADING, *without) and set(chosen[name]) != set(frame[name])
    ]
    if "sp" in narrow:  # which of `dp` and `world` follows from it
        narrow = [name for name in narrow if name != "dp"]
    parts = [listed(chosen, "loss"), f"on {listed(chosen, 'environment')}"]
    if narrow:
        parts.append(f"at {', '.join(f'{name}={listed(chosen, name)}' for name in narrow)}")
    return " ".join(parts)


def listed(trials: pd.DataFrame, name: str) -> str:
    """The values of an axis among `trials`, in order: `0, 1, 2`."""
    return ", ".join(text_of(v) for v in sorted(trials[name].unique().tolist(), key=natural))
