"""The scenario that measures the machine, on real ranks."""

from __future__ import annotations

import pytest

from bench.record import Status
from bench.trial import CommSpec
from tests.conftest import RunTrial, configure

pytestmark = pytest.mark.environment


@pytest.mark.parametrize("world", [1, 2])
def test_it_measures_products_copies_and_all_to_alls(world: int, run_trial: RunTrial) -> None:
    record = run_trial(
        configure(
            scenario="machine",
            world=world,
            sp=1,
            comm=CommSpec(name="gloo"),
            gradient_check="off",
        )
    )
    assert record.status is Status.OK, record.reason
    details = record.details
    assert 1e8 < details["matmul_flops"] < 1e13
    assert 1e7 < details["copy_bandwidth"] < 1e12
    sizes = [point["bytes"] for point in details["all_to_all"]]
    assert sizes == ([] if world == 1 else [4**power * 1024 for power in range(1, 8)])
    assert all(0 < point["seconds"] < 10 for point in details["all_to_all"])
    assert "GFLOP/s" in details["headline"]
