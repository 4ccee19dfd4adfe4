"""What a record can hold, and what is refused."""

from __future__ import annotations

import collections
import json
import math
import os
from typing import Any

import numpy as np
import pytest

from bench.plain import MOST_DEPTH, Unwritable, plain, plain_text, shown
from bench.record import Status

UNDECODABLE = os.fsdecode(b"a\xff")


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (UNDECODABLE, "a\\xff"),
        ("\ud800 and \udfff", "\\ud800 and \\udfff"),
        ("é😀\0", "é😀\0"),
        ([math.nan, -math.inf, 1.5, -0.0], [None, None, 1.5, -0.0]),
        ((1, (2,)), [1, [2]]),
        (
            {2: "a", None: "b", True: "c", 1.5: "d"},
            {"2": "a", "null": "b", "true": "c", "1.5": "d"},
        ),
        (collections.OrderedDict({UNDECODABLE: 1}), {"a\\xff": 1}),
        (np.float64(0.5), 0.5),
        (Status.OK, "ok"),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
    ],
)
def test_values_become_what_json_has(given: Any, made: Any) -> None:
    found = plain(given)
    assert found == made
    assert type(found) is type(made)
    assert json.loads(json.dumps(found, allow_nan=False)) == made


def _itself() -> Any:
    found: Any = {"a": []}
    found["a"] += [found, found]
    return found


def _many() -> Any:
    found: Any = [0] * 10
    for _ in range(12):  # 10 lists in memory, 10**13 values on paper
        found = [found] * 10
    return found


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"a": [0, {"b": {1, 2}}]}, "a[1].b: JSON has no set"),
        ({"a": np.float32(1)}, "a: JSON has no float32"),
        ({"a": b"x"}, "a: JSON has no bytes"),
        ({("k",): 1}, "the key ('k',) is no text"),
        ({Odd(): 1}, "the key a Odd is no text"),
        ({1: "a", "1": "b"}, "two keys that JSON writes as '1'"),
        ([2**63], "[0]: a whole number of more than 64 bits"),
        pytest.param(10**5000, "a whole number of more than 64 bits", id="huge"),
        (_itself(), "a[0]: it contains itself"),
    ],
)
def test_what_json_has_not_is_refused_with_its_place(given: Any, why: str) -> None:
    with pytest.raises(Unwritable) as caught:
        plain(given)
    assert str(caught.value) == why


def test_depth_and_number_of_values_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    deep: Any = 1
    for _ in range(MOST_DEPTH):
        deep = [deep]
    assert plain(deep) == deep
    with pytest.raises(Unwritable, match=f"more than {MOST_DEPTH} lists"):
        plain([deep])
    monkeypatch.setattr("bench.plain.MOST_VALUES", 1000)
    with pytest.raises(Unwritable, match="more than 1,000 values"):
        plain(_many())


def test_what_is_shown_is_short_and_can_be_written() -> None:
    assert plain_text(UNDECODABLE) == "a\\xff"
    assert shown(Odd()) == "a Odd"
    assert len(shown("x" * 10**6)) == 80
