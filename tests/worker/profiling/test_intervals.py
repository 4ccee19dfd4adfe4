"""Interval arithmetic by hand, and its laws on whatever hypothesis thinks of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.worker.profiling.intervals import Interval, innermost, intersect, length, union

INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def covered(intervals: list[Interval]) -> set[int]:
    """The unit cells that intervals cover."""
    return {cell for start, end in intervals for cell in range(start, end)}


def test_by_hand() -> None:
    assert union([(5, 7), (0, 2), (2, 3), (6, 9), (4, 4)]) == [(0, 3), (5, 9)]
    assert length([(5, 7), (0, 2), (6, 9)]) == 6
    assert intersect([(0, 4), (6, 9)], [(3, 7), (8, 20)]) == [(3, 4), (6, 7), (8, 9)]


def test_the_innermost_interval_has_the_moment() -> None:
    #            0123456789
    # 0 outer      ------
    # 1 inner       --
    # 2 inner           --   (ends with the outer)
    found = innermost([(1, 8), (2, 4), (6, 8)], (0, 10))
    assert [tuple(one) for one in found] == [
        (0, 1, -1),
        (1, 2, 0),
        (2, 4, 1),
        (4, 6, 0),
        (6, 8, 2),
        (8, 10, -1),
    ]


def test_of_two_that_begin_together_the_shorter_is_inside() -> None:
    assert [tuple(one) for one in innermost([(0, 2), (0, 5)], (0, 5))] == [(0, 2, 0), (2, 5, 1)]
    assert [tuple(one) for one in innermost([(0, 5), (0, 5)], (0, 5))] == [(0, 5, 1)]


@given(INTERVALS)
def test_union_covers_the_same_and_is_disjoint(intervals: list[Interval]) -> None:
    found = union(intervals)
    assert covered(found) == covered(intervals)
    assert all(a[1] < b[0] for a, b in zip(found, found[1:], strict=False))
    assert length(intervals) == len(covered(intervals))


@given(INTERVALS, INTERVALS)
def test_intersection_is_what_both_cover(one: list[Interval], other: list[Interval]) -> None:
    assert covered(intersect(one, other)) == covered(one) & covered(other)


@given(INTERVALS, st.integers(0, 30), st.integers(1, 30))
def test_segments_fill_the_window(intervals: list[Interval], start: int, size: int) -> None:
    window = (start, start + size)
    segments = innermost(intervals, window)
    assert segments[0].start == window[0] and segments[-1].end == window[1]
    assert all(a.end == b.start for a, b in zip(segments, segments[1:], strict=False))
    for segment in segments:
        for moment in range(segment.start, segment.end):
            around = [i for i, (a, b) in enumerate(intervals) if a <= moment < b]
            if not around:
                assert segment.which == -1
            else:
                begun = max(intervals[i][0] for i in around)
                assert segment.which in around and intervals[segment.which][0] == begun
