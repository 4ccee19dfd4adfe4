"""Which configurations are a side of a comparison."""

from __future__ import annotations

import pandas as pd

from analysis.comparison import Pair


def natural_pairs(frame: pd.DataFrame) -> list[Pair]:
    """The comparisons that a folder was made for; empty when nothing varies in two values.

    With an older and a newer torch: the workaround on the older against all_gather on the newer.
    Otherwise the first of environment, loss, attention, comm (or any axis of two values) that
    varies: its first value against each other one.
    """
    raise NotImplementedError
