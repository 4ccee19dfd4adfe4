"""A candidate against a baseline: `compare`, and what to say about it.

from analysis.compare import compare, natural_pairs, sentences
for pair in natural_pairs(frame):
    print(*sentences(compare(frame, pair.baseline, pair.candidate)))
"""

from __future__ import annotations

import pandas as pd

from analysis.comparison import (
    NO_NUMBER,
    NOT_VALID,
    Comparison,
    Decomposition,
    Effect,
    Pair,
    Point,
    Selector,
    Side,
)
from analysis.selection import natural_pairs
from analysis.sentences import sentences
from analysis.statistics import SMALLEST

__all__ = [
    "NOT_VALID",
    "NO_NUMBER",
    "Comparison",
    "Decomposition",
    "Effect",
    "Pair",
    "Point",
    "Selector",
    "Side",
    "compare",
    "natural_pairs",
    "sentences",
]


def compare(
    frame: pd.DataFrame, baseline: Selector, candidate: Selector, smallest: float = SMALLEST
) -> Comparison:
    """`candidate` against `baseline` at every point of `analysis.frame.load`'s frame.

    Both are values of axes, such as `{"environment": "torch-2.2", "loss": "all_gather"}`. A point
    is a combination of all other axes. `smallest` is the relative difference that matters.

    Raises AnalysisError for an axis or a value that the frame lacks, and where a selector
    leaves several configurations at a point.
    """
    raise NotImplementedError
