"""Lines out of pieces of bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.lines import Line, Lines

PIECES = st.lists(st.text("ab\n", max_size=6).map(str.encode), max_size=20)


@given(PIECES)
def test_whatever_the_pieces_the_lines_are_those_of_the_whole(pieces: list[bytes]) -> None:
    lines = Lines()
    found = [line for piece in pieces for line in lines.take(piece)]
    assert [line.content for line in found] == b"".join(pieces).split(b"\n")[:-1]
    assert all(line.length == len(line.content) for line in found)


@given(PIECES)
def test_of_a_long_line_the_beginning_stays_and_the_length_is_told(pieces: list[bytes]) -> None:
    lines = Lines(most=3)
    found = [line for piece in pieces for line in lines.take(piece)]
    whole = b"".join(pieces).split(b"\n")[:-1]
    assert [line.length for line in found] == list(map(len, whole))
    assert [line.content for line in found if line.length <= 3] == [o for o in whole if len(o) < 4]
    assert all(full.startswith(line.content) for line, full in zip(found, whole))


def test_a_line_without_end_takes_no_more_memory_than_the_bound() -> None:
    lines = Lines(most=5000)
    for _ in range(10_000):
        assert lines.take(b"x" * 1000) == []
    assert sum(map(len, lines._parts)) == 1000
    assert lines.take(b"\nnext\n") == [Line(b"x" * 1000, 10_000_000), Line(b"next", 4)]
