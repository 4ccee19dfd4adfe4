"""Waiting and transfer, sums and hiding, on three ranks whose times one can follow by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.worker.profiling.breakdown import (
    Call,
    Piece,
    hidden,
    last_entries,
    seconds,
    timeline,
    without_waiting,
)
from bench.worker.profiling.labels import CATEGORIES, Labelled


def call(
    entered: int, left: int, ranks: tuple[int, ...] = (0, 1), name: str = "all_reduce"
) -> Call:
    return Call(name, "backward", ranks, 8, entered, left)


def test_the_last_to_enter_is_waited_for() -> None:
    calls = {
        0: [call(10, 40), call(50, 60, ranks=(0, 2)), call(70, 90)],
        1: [call(30, 40), call(72, 90)],
        2: [call(55, 60, ranks=(0, 2))],
    }
    assert last_entries(calls) == {0: [30, 55, 72], 1: [30, 72], 2: [55]}


def test_of_a_call_that_the_others_do_not_know_no_waiting_is_told() -> None:
    calls = {0: [call(10, 40)], 1: [call(30, 40, name="broadcast")]}
    assert last_entries(calls) == {0: [10], 1: [30]}


def test_a_collective_is_cut_where_the_last_rank_enters() -> None:
    labelled = [
        Labelled(0, 100, "rest", None, ""),
        Labelled(10, 40, "all_to_all", 0, ""),
        Labelled(15, 20, "all_to_all", 0, ""),
        Labelled(50, 60, "attention", None, ""),
    ]
    pieces = without_waiting(timeline(labelled, (0, 90)), [30])
    assert seconds(pieces) == {
        **dict.fromkeys(CATEGORIES, 0.0),
        "waiting": pytest.approx(20e-9),
        "all_to_all": pytest.approx(10e-9),
        "attention": pytest.approx(10e-9),
        "rest": pytest.approx(50e-9),
    }
    assert without_waiting([Piece(10, 20, "all_to_all", 0)], [10]) == [
        Piece(10, 20, "all_to_all", 0)
    ]
    assert without_waiting([Piece(10, 20, "all_to_all", 0)], [25]) == [Piece(10, 20, "waiting", 0)]


def test_hidden_is_what_moves_while_the_rank_works() -> None:
    # issued at 10, the other rank enters at 20, over at 50; this rank works until 30
    calls = [call(10, 50)]
    pieces = [
        Piece(0, 10, "attention"),
        Piece(10, 12, "gradient_reduction", 0),
        Piece(12, 30, "matrix"),
        Piece(30, 50, "gradient_reduction", 0),
        Piece(50, 60, "rest"),
    ]
    assert hidden(calls, [20], pieces, (0, 60)) == pytest.approx((30e-9, 10e-9))
    idle = [piece._replace(category="idle", call=None) for piece in pieces]
    assert hidden(calls, [20], idle, (0, 60)) == pytest.approx((30e-9, 0.0))


def test_a_group_of_one_moves_nothing() -> None:
    assert hidden([call(0, 9, ranks=(0,))], [0], [Piece(0, 9, "rest")], (0, 9)) == (0.0, 0.0)


NESTED = st.lists(
    st.tuples(st.integers(0, 80), st.integers(1, 30), st.sampled_from(CATEGORIES[:7])), max_size=10
)


@given(NESTED, st.integers(0, 100))
def test_the_parts_add_up_whatever_the_events_are(
    events: list[tuple[int, int, str]], entry: int
) -> None:
    labelled = [Labelled(a, a + size, what, 0, "") for a, size, what in events]
    pieces = without_waiting(timeline(labelled, (5, 70)), [entry])
    assert sum(seconds(pieces).values()) == pytest.approx(65e-9)
