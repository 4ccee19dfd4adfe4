"""Two results folders side by side: the same axes, and rounds that can be paired."""

from __future__ import annotations

import pandas as pd


def beside(before: pd.DataFrame, now: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both frames with the columns of either, and the rounds of a configuration numbered anew.

    An axis that one folder lacks (an option that nobody set there) is missing in its rows.
    """
    columns = [*before.columns, *(name for name in now.columns if name not in before.columns)]
    return _numbered(before.reindex(columns=columns)), _numbered(now.reindex(columns=columns))


def _numbered(frame: pd.DataFrame) -> pd.DataFrame:
    """Rounds by the order in which they were run: the n-th of one folder pairs with the other's."""
    ordered = frame.sort_values("round", kind="stable")
    return ordered.assign(round=ordered.groupby("config_hash").cumcount())
