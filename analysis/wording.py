"""Pieces of sentences that several modules write."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

from bench.record import MODE_MARKS


def hint(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'sp'?`, the nearest of `known`; empty when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def marked(text: str, mode: object) -> str:
    """`text` with what its verdict was judged by: `match (2-layer proxy)`; alone where `exact`."""
    mark = MODE_MARKS.get(str(mode))
    return f"{text} ({mark})" if mark and text else text


def span(values: Iterable[float], kind: str) -> str:
    """`low to high` in the number format `kind`; one number where they are equal."""
    known = [value for value in values if math.isfinite(value)]
    ends = dict.fromkeys(format(value, kind) for value in (min(known), max(known)))
    return " to ".join(ends)
