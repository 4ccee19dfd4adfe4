"""Finished ranks wait for each other, and rank 0, which serves the store, goes last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.record import Status
from tests.conftest import RunTrial, configure

pytestmark = pytest.mark.environment


@pytest.mark.parametrize("environment", ["torch-2.2", "torch-2.13"])
def test_ranks_part_through_the_store(environment: str, run_inside: Callable[..., Any]) -> None:
    assert run_inside(environment, "leaving.py") == {
        "done": [[0, "done"], [1, "done"]],
        "alive while rank 2 works": [True, True],
        "rank 1 has left": [[1, "leaves"], 0],
        "rank 0 serves rank 2": True,
        "rank 0 goes last": [[0, "leaves"], 0],
    }


def test_a_rank_that_ends_late_still_has_its_peers(run_trial: RunTrial) -> None:
    record = run_trial(configure(scenario="drill", options={"fault": "late"}))
    assert record.status is Status.OK, record.errors
    assert [rank.outcome for rank in record.ranks] == ["finished"] * 4


def test_peers_that_are_done_do_not_hide_who_failed(run_trial: RunTrial) -> None:
    """Rank 3 raises when the others are done and wait for it."""
    record = run_trial(configure(scenario="drill", options={"fault": "late", "late_raises": True}))
    assert record.status is Status.ERROR
    assert [rank.outcome for rank in record.ranks] == ["finished"] * 3 + ["raised"]
    assert record.duration_s < 30
