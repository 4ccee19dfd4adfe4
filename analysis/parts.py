"""A part of a page or a table whose records do not let it be made, and what stands in its place.

One record that nothing foresaw must not cost the report: the part is made without it where that
can be found out, and says which records it was given where not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import pandas as pd

from analysis.frame import AnalysisError, places

Result = TypeVar("Result")

MOST_TRIED = 20
"""Records that are tried one by one: each time the folder is read again."""
MOST_NAMED = 5


class Part(NamedTuple, Generic[Result]):
    """What was made, and what was not."""

    made: Result | None
    trouble: str | None
    """Why it was not made, or not of all records; None where all is well."""


def part(folder: Path, frame: pd.DataFrame, make: Callable[[pd.DataFrame], Result]) -> Part[Result]:
    """What `make` makes of the rows of `frame`, if need be without the records that prevent it.

    Raises AnalysisError where `make` does: it says what to do.
    """
    try:
        return Part(make(frame), None)
    except AnalysisError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a record's content may bring about
        why = f"{type(error).__name__}: {error}"
    culprits = _culprits(frame, make) if 1 < len(frame) <= MOST_TRIED else []
    if culprits:
        rest = frame.drop(frame.index[culprits])
        made = _tried(rest, make) if len(rest) else None
        if made is not None:
            named = places_named(folder, frame.iloc[culprits])
            return Part(made[0], f"was made without {named} ({why})")
        frame = frame.iloc[culprits]
    return Part(None, f"could not be made of {places_named(folder, frame)} ({why})")


def places_named(folder: Path, frame: pd.DataFrame) -> str:
    """Files and lines of the rows of `frame`, the first `MOST_NAMED` of them."""
    found = list(places(folder, frame).values())
    more = len(found) - MOST_NAMED
    return ", ".join(found[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _culprits(frame: pd.DataFrame, make: Callable[[pd.DataFrame], Result]) -> list[int]:
    """Positions of the rows of which alone nothing can be made."""
    return [place for place in range(len(frame)) if _tried(frame.iloc[[place]], make) is None]


def _tried(frame: pd.DataFrame, make: Callable[[pd.DataFrame], Result]) -> tuple[Result] | None:
    try:
        return (make(frame),)
    except Exception:  # noqa: BLE001 - told of already: this only asks where it comes from
        return None
