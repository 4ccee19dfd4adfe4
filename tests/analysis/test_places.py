"""Words for sets of points."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from analysis.comparison import Point, Side
from analysis.places import listed, where
from analysis.statistics import ratio_of

AXES = ("zero", "sp", "dp", "seq_len")
NOTHING = Side(None, {}, "", None, None, None, "", None, "", "", "", 0, False, True)


def points() -> list[Point]:
    """ZeRO 1 and 3, sp=2, dp=2 and sp=4, dp=1, at 512, 1,024 and 2,048 tokens."""
    return [
        Point(
            axes=dict(zip(AXES, (zero, sp, 4 // sp, seq_len), strict=True)),
            baseline=NOTHING,
            candidate=NOTHING,
            ratio=ratio_of([]),
            verdict="",
            phases_s={},
            memory_ratio=None,
            decomposition=None,
        )
        for zero, sp, seq_len in itertools.product((1, 3), (2, 4), (512, 1024, 2048))
    ]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        pytest.param(lambda a: True, [""], id="all"),
        pytest.param(lambda a: a["seq_len"] >= 1024, ["from 1,024 tokens on"], id="long"),
        pytest.param(lambda a: a["seq_len"] < 2048, ["up to 1,024 tokens"], id="short"),
        pytest.param(lambda a: a["seq_len"] == 2048, ["at 2,048 tokens"], id="one"),
        pytest.param(lambda a: a["seq_len"] != 1024, ["at 512 and 2,048 tokens"], id="gap"),
        pytest.param(lambda a: a["sp"] == 2, ["at sp=2, dp=2"], id="split"),
        pytest.param(lambda a: a["zero"] == 3, ["with ZeRO 3"], id="zero"),
        pytest.param(
            lambda a: a["seq_len"] > 512 and a["sp"] == 4 and a["zero"] == 1,
            ["from 1,024 tokens on at sp=4, dp=1 with ZeRO 1"],
            id="everything",
        ),
        pytest.param(
            lambda a: a["sp"] == 4 or a["zero"] == 3,
            ["at sp=4, dp=1 with ZeRO 1", "with ZeRO 3"],
            id="no-rectangle",
        ),
        pytest.param(
            lambda a: a["sp"] == 4 or a["seq_len"] == 512,
            ["at 512 tokens at sp=2, dp=2", "at sp=4, dp=1"],
            id="lengths-differ",
        ),
    ],
)
def test_words(chosen: Callable[[dict[str, int]], bool], expected: list[str]) -> None:
    every = points()
    wanted = [point for point in every if chosen(dict(point.axes))]
    found = where(wanted, every, AXES)
    assert [words for words, _ in found] == expected
    together = [point for _, piece in found for point in piece]
    assert sorted(map(id, together)) == sorted(map(id, wanted))  # each once


def test_lists() -> None:
    assert [listed(words) for words in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
