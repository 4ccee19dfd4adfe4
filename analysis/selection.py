"""Which configurations are a side of a comparison."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pandas as pd

from analysis.columns import AXES, is_axis
from analysis.comparison import Pair, Selector
from analysis.reading import AnalysisError
from analysis.table import natural, varying_axes
from analysis.wording import hint

WORKAROUND, UPGRADED = "weighted_all_reduce", "all_gather"
"""The loss aggregations of the question that spbench was made for."""

METHODS = ("environment", "loss", "attention", "comm")
"""Axes that are worth comparing however many values they have, the first first."""


def parse_selector(text: str, side: str) -> Selector:
    """`environment=torch-2.2 loss=all_gather` as a mapping; values with blanks are quoted.

    `side` is named in the message when that fails: AnalysisError.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise AnalysisError(
            f"{side}: {text!r} cannot be split into words ({error}); close the quotes"
        ) from error
    pairs = [word.partition("=") for word in words]
    for key, equals, value in pairs:
        if not (key and equals and value):
            raise AnalysisError(
                f"{side}: '{key}{equals}{value}' is not key=value; write for example "
                "'environment=torch-2.2 loss=all_gather'"
            )
    if not pairs:
        raise AnalysisError(f"{side}: empty; write for example 'environment=torch-2.2'")
    return {key: value for key, _, value in pairs}


def select(frame: pd.DataFrame, selector: Selector, side: str) -> pd.DataFrame:
    """The trials that `selector` chooses; AnalysisError where there are none."""
    for key, value in selector.items():
        if key not in axes_in(frame):
            raise AnalysisError(f"{side}: {key}: unknown axis; {_allowed_axes(frame, key)}")
        if not matching(frame[key], value).any():
            values = sorted(frame[key].unique().tolist(), key=natural)
            raise AnalysisError(
                f"{side}: {key}={value}: no trial here has it; allowed: "
                f"{', '.join(map(text_of, values))}{hint(value, map(text_of, values))}"
            )
    chosen = find(frame, selector)
    if chosen.empty:
        both = " and ".join(f"{key}={value}" for key, value in selector.items())
        raise AnalysisError(f"{side}: no trial here has {both} together; name one less")
    return chosen


def find(frame: pd.DataFrame, selector: Selector) -> pd.DataFrame:
    """The same without looking at whether there are any."""
    chosen = frame
    for key, value in selector.items():
        chosen = chosen[matching(chosen[key], value)]
    return chosen


def axes_in(frame: pd.DataFrame) -> list[str]:
    """The axes that a frame has, those of the free dictionaries last."""
    free = [name for name in frame if name not in AXES and is_axis(name)]
    return [*(name for name in AXES if name in frame), *free]


def matching(values: pd.Series, text: str) -> pd.Series:
    """Which values `text` names."""
    return values.map(lambda value: _same(value, text)).astype(bool)


def text_of(value: Any) -> str:
    """A value of an axis as users write it: `true`, `none`, `2048`."""
    if value is None or value != value:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value)


def natural_pairs(frame: pd.DataFrame) -> list[Pair]:
    """The comparisons that a folder was made for; empty when nothing varies in two values.

    With an older and a newer torch: the workaround on the oldest against all_gather on each
    newer one, the newest first; then all_gather on the oldest against the newest, which shows
    whether the workaround was needed. Otherwise the first of environment, loss, attention, comm (or
    any axis of two values) that varies: its first value against each other one.
    """
    upgrades = _upgrades(frame)
    if upgrades:
        return upgrades
    varying = varying_axes(frame)
    two = [name for name in varying if frame[name].nunique(dropna=False) == 2]
    for axis in [name for name in METHODS if name in varying] or two[:1]:
        first, *others = _ordered(frame, axis)
        return [Pair({axis: first}, {axis: other}) for other in others]
    return []


def _upgrades(frame: pd.DataFrame) -> list[Pair]:
    both = frame.groupby("loss").environment.unique()
    if WORKAROUND not in both or UPGRADED not in both:
        return []
    oldest = _ordered(frame[frame.loss == WORKAROUND], "environment")[0]
    newer = [
        name
        for name in _ordered(frame[frame.loss == UPGRADED], "environment")
        if _version(frame, name) > _version(frame, oldest)
    ]
    baseline = {"environment": oldest, "loss": WORKAROUND}
    upgraded = [{"environment": name, "loss": UPGRADED} for name in reversed(newer)]
    pairs = [Pair(baseline, candidate) for candidate in upgraded]
    if pairs and oldest in both[UPGRADED]:
        pairs.append(Pair({"environment": oldest, "loss": UPGRADED}, upgraded[0]))
    return pairs


def _ordered(frame: pd.DataFrame, axis: str) -> list[str]:
    """An axis's values, what the others are compared with first."""
    values = frame[axis].unique().tolist()
    if axis == "environment":
        values.sort(key=lambda name: (_version(frame, name), natural(name)))
    elif axis == "loss":
        values.sort(key=lambda name: (name != WORKAROUND, name))
    else:
        values.sort(key=natural)
    return [text_of(value) for value in values]


def _version(frame: pd.DataFrame, environment: str) -> Any:
    """Sort key of an environment's torch, as its workers saw it; otherwise by its name."""
    seen = frame[frame.environment == environment].torch.dropna()
    version = seen.iloc[0] if len(seen) else re.sub(r"^\D*", "", environment)
    return natural(version.partition("+")[0])


def _same(value: Any, text: str) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        try:
            return float(text) == value
        except ValueError:
            return False
    known = text_of(value)
    return known == text or (isinstance(value, bool) and known == text.lower())


def _allowed_axes(frame: pd.DataFrame, key: str) -> str:
    near = hint(key, axes_in(frame)).removeprefix("; ")
    return near or f"allowed: {', '.join(varying_axes(frame)) or ', '.join(METHODS)}"
