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


WAYS = ("direct", "wait_tensor", "method")
ALL_REDUCE = [f"fc.all_reduce/awaited={way}/world/contiguous/float32" for way in WAYS]
BROADCAST = [f"fc.broadcast/root=first,awaited={way}/world/contiguous/float32" for way in WAYS]
BY_GROUP = "nn.broadcast/root=first,root_by=group/sp/contiguous/float32"
USE = "nn.all_gather/use={}/world/contiguous/float32"


def of_rank_1(found: Any, cases: list[str]) -> list[str]:
    return [ends(found, case)[1]["status"] for case in cases]


def test_what_a_version_does_in_each_way_and_with_each_use(run_inside: RunInside) -> None:
    """What torch 2.13 was measured to do on gloo; a change here is news.

    Gloo takes the memory of a transposed gradient as if it were contiguous; rank 1 is alone in
    its group, and there rank 0, which the function takes for a rank of the world.
    """
    cases = [*ALL_REDUCE, *BROADCAST, USE.format("*"), BY_GROUP]
    found = run_inside("torch-2.13", "collectives.py", "none", *cases)
    assert of_rank_1(found, ALL_REDUCE) == ["ok"] * 3
    assert of_rank_1(found, BROADCAST) == ["wrong gradient"] * 3
    right = ["same_loss", "matmul", "sum", "sum_of_parts", "expanded", "cat"]
    assert of_rank_1(found, [USE.format(use) for use in right]) == ["ok"] * 6
    assert of_rank_1(found, [USE.format("matmul_transposed")]) == ["wrong gradient"]
    assert [row["status"] for row in ends(found, BY_GROUP)] == ["ok", "error"]


def test_a_version_without_autograd_differs_by_the_way_to_await(run_inside: RunInside) -> None:
    """What torch 2.2 was measured to do; rank 1's right gradient of the broadcast is 0."""
    found = run_inside("torch-2.2", "collectives.py", "none", *ALL_REDUCE, *BROADCAST)
    assert of_rank_1(found, ALL_REDUCE) == ["no gradient", "wrong gradient", "wrong gradient"]
    assert of_rank_1(found, BROADCAST) == ["no gradient", "wrong gradient", "wrong gradient"]


def test_a_version_that_loses_the_gradient_in_wait_and_takes_group_src(
    run_inside: RunInside,
) -> None:
    """One way to await does not speak for the others; a root's rank in the group is given as such
    where the function can take it.
    """
    found = run_inside("torch-2.13", "collectives.py", "later", *ALL_REDUCE, BY_GROUP)
    assert of_rank_1(found, ALL_REDUCE) == ["ok", "ok", "wrong gradient"]
    assert [row["gradient"]["scale"] for row in ends(found, ALL_REDUCE[2])] == [0.0, 0.0]
    assert [row["status"] for row in ends(found, BY_GROUP)] == ["ok", "ok"]
