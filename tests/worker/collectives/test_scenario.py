"""The scenario through the whole harness: four ranks, two groups, a hang, a record."""

from __future__ import annotations

import pytest

from bench.record import Status
from bench.trial import CommSpec
from tests.conftest import RunTrial, configure

pytestmark = [pytest.mark.environment, pytest.mark.slow]

HANGS = "nn.gather/root=first/sp/contiguous/float32"
RIGHT = "nn.all_reduce/-/sp/contiguous/bfloat16"
TIMED = ("ds._SeqAllToAll", "nn.all_to_all_single", "nn.all_gather", "nn.all_reduce")


def test_a_group_without_rank_0_and_bandwidth(run_trial: RunTrial) -> None:
    """What torch 2.13 was measured to do on gloo; a change here is news."""
    options = {"only": [HANGS, RIGHT], "timing": True, "seq_lens": [64]}
    record = run_trial(
        configure(
            scenario="collectives",
            comm=CommSpec(name="gloo"),
            gradient_check="off",
            options=options,
        )
    )
    assert record.status is Status.OK, record.reason
    assert record.config.options == options
    found = {one["case"]: one["outcomes"] for one in record.details["cases"]}
    assert found.keys() == {HANGS, RIGHT}
    assert found[RIGHT] == [{"ranks": [0, 1, 2, 3], "status": "ok"}]
    fine, raised, hung = found[HANGS]
    assert fine == {"ranks": [0, 1], "status": "ok"}
    assert (raised["ranks"], raised["type"]) == ([2], "ValueError")
    assert (hung["ranks"], hung["status"]) == ([3], "hang")
    timed = [row for row in record.details["timing"] if row["rank"] == 0]
    assert [(one["collective"], one["direction"]) for one in timed] == [
        (name, direction) for name in TIMED for direction in ("forward", "backward")
    ]
    for one in timed:
        assert (one["bytes"], one["ranks"], one["wrong"]) == (32 * 64 * 4, 2, 0)  # [1, 32, 8, 8]
        factor = 1.0 if one["collective"] in ("nn.all_reduce", "nn.all_gather") else 0.5
        assert one["bus_bandwidth"] == pytest.approx(factor * one["bytes"] / one["seconds"])
