"""Two results folders side by side: the same axes, and rounds that can be paired."""

from __future__ import annotations

import pandas as pd

from analysis.identities import RESULT
from bench.identity import NOTHING


def beside(
    before: pd.DataFrame, now: pd.DataFrame, across_machines: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both frames with the columns of either, and the rounds of a result numbered anew.

    An axis that one folder lacks (an option that nobody set there) is missing in its rows. Rounds
    of two folders share no host, so hosts are no part of a pair; nor are classes of machines with
    `across_machines`.
    """
    columns = [*before.columns, *(name for name in now.columns if name not in before.columns)]
    sides = [_numbered(one.reindex(columns=columns)) for one in (before, now)]
    if across_machines:
        sides = [one.assign(machine_class=NOTHING) for one in sides]
    return sides[0], sides[1]


def _numbered(frame: pd.DataFrame) -> pd.DataFrame:
    """Rounds by the order in which they were run: the n-th of one folder pairs with the other's."""
    ordered = frame.sort_values("round", kind="stable")
    return ordered.assign(round=ordered.groupby(RESULT).cumcount(), hostname="")
