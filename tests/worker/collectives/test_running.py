"""Cases on two real ranks: every kind of fault is seen, on the rank that has it, and what comes
after it runs all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.environment

BROKEN = "nn.all_reduce/-/world/contiguous/float32"
AFTER = "nn.reduce_scatter/-/world/contiguous/float32"
RunInside = Callable[..., Any]


def ends(found: Any, case: str) -> list[dict[str, Any]]:
    """What each rank noted at the end of a case."""
    return [
        row
        for rows in found["rows"]
        for row in rows
        if (row["event"], row["case"]) == ("end", case)
    ]


def statuses(run_inside: RunInside, fault: str) -> list[str]:
    found = run_inside("torch-2.13", "collectives.py", fault, BROKEN, AFTER)
    assert [row["status"] for row in ends(found, AFTER)] == ["ok", "ok"]
    return [row["status"] for row in ends(found, BROKEN)]


def test_nothing_broken(run_inside: RunInside) -> None:
    assert statuses(run_inside, "none") == ["ok", "ok"]


def test_wrong_value_on_the_rank_that_has_it(run_inside: RunInside) -> None:
    assert statuses(run_inside, "value") == ["ok", "wrong value"]


def test_wrong_gradient_and_its_scale(run_inside: RunInside) -> None:
    """Rank 1 hands twice its upstream to the all-reduce of the backward, so both ranks are off;
    not by a common factor, since rank 0's share is right.
    """
    assert statuses(run_inside, "gradient") == ["wrong gradient", "wrong gradient"]


def test_no_gradient(run_inside: RunInside) -> None:
    assert statuses(run_inside, "detached") == ["no gradient", "no gradient"]


def test_an_error_and_the_peer_that_waits(run_inside: RunInside) -> None:
    found = run_inside("torch-2.13", "collectives.py", "error", BROKEN, AFTER)
    waiting, raising = ends(found, BROKEN)
    assert (raising["status"], raising["type"], raising["phase"]) == (
        "error",
        "IndexError",
        "forward",
    )
    assert raising["message"] == "on purpose"
    assert waiting["status"] == "hang"
    assert [row["status"] for row in ends(found, AFTER)] == ["ok", "ok"]


def test_memory_that_was_never_written_is_no_answer(run_inside: RunInside) -> None:
    found = run_inside("torch-2.13", "collectives.py", "unwritten", BROKEN)
    for row in ends(found, BROKEN):
        assert row["status"] == "wrong value and gradient"
        assert row["value"] == {"problem": "not finite"}


def test_what_a_version_adds_or_lacks_is_listed(run_inside: RunInside) -> None:
    found = run_inside("torch-2.13", "collectives.py", "listed", BROKEN)
    assert found["unknown"] == ["nn.all_to_some"]
    assert found["absent"] == ["nn.gather"]
    found = run_inside("torch-2.13", "collectives.py", "none", BROKEN)
    assert (found["unknown"], found["absent"]) == ([], [])
