"""Arithmetic of half-open time intervals [start, end) in nanoseconds."""

from __future__ import annotations

from typing import Iterable, List, NamedTuple, Tuple

Interval = Tuple[int, int]


class Segment(NamedTuple):
    """A stretch of time and which interval is the innermost that covers it."""

    start: int
    end: int
    which: int
    """Its index in the input; -1 where nothing covers it."""


def union(intervals: Iterable[Interval]) -> List[Interval]:
    """The same moments, each once: sorted, disjoint, not touching."""
    merged: List[Interval] = []
    for start, end in sorted(one for one in intervals if one[0] < one[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def length(intervals: Iterable[Interval]) -> int:
    """Nanoseconds covered, each moment counted once."""
    return sum(end - start for start, end in union(intervals))


def intersect(one: Iterable[Interval], other: Iterable[Interval]) -> List[Interval]:
    """The moments in both."""
    a, b = union(one), union(other)
    found: List[Interval] = []
    i = j = 0
    while i < len(a) and j < len(b):
        start, end = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if start < end:
            found.append((start, end))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return found


def innermost(intervals: Iterable[Interval], window: Interval) -> List[Segment]:
    """Cut `window` so that each moment belongs to the innermost interval that covers it.

    Innermost is the one that began last; of those that began together, the one that ends
    first, then the later in the input. The segments are in order and fill the window, so that
    their lengths add up to it whatever the intervals are.
    """
    begin, finish = window
    order = sorted(
        ((start, -end, index) for index, (start, end) in enumerate(intervals) if start < end)
    )
    segments: List[Segment] = []
    open_: List[Tuple[int, int]] = []  # (end, index), the innermost last
    now = begin

    def fill(until: int) -> None:
        nonlocal now
        while now < until:
            while open_ and open_[-1][0] <= now:
                open_.pop()
            end, index = open_[-1] if open_ else (until, -1)
            stop = min(end, until)
            if segments and segments[-1].which == index:
                segments[-1] = segments[-1]._replace(end=stop)
            else:
                segments.append(Segment(now, stop, index))
            now = stop

    for start, negative_end, index in order:
        if start >= finish:
            break
        fill(max(begin, start))
        if -negative_end > begin:
            open_.append((-negative_end, index))
    fill(finish)
    return segments
