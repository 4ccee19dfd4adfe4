"""The six aggregations, by hand: m = (2, 5), n = (3, 1), N = 4, dm/dw = m at w = 1.

The mean over the sequence is (3*2 + 1*5) / 4 = 2.75. A rank's own share of it is 3*2/4 = 1.5
and 1*5/4 = 1.25, which add up to 2.75. Where autograd sees every rank's loss, each share comes
back from both ranks: 3.0 and 2.5, twice as much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.environment

SHARE = [1.5, 1.25]
BOTH = [3.0, 2.5]
MEAN = [2.75, 2.75]

EXPECTED = {  # losses of the two ranks, gradients of the two ranks
    "all_gather": (MEAN, BOTH),
    "weighted_all_reduce": (MEAN, SHARE),
    "functional_all_reduce": (MEAN, BOTH),
    "functional_collective": (MEAN, BOTH),
    "local": (SHARE, SHARE),
    "local_mean": ([2.0, 5.0], [2.0, 5.0]),
}


@pytest.mark.parametrize("comm", ["gloo", "nccl_over_gloo"])
def test_losses_and_gradients(run_inside: Callable[..., Any], comm: str) -> None:
    found = run_inside("torch-2.13", "aggregations.py", comm)
    assert set(found[0]) == set(EXPECTED)
    for name, (losses, gradients) in EXPECTED.items():
        assert [rank[name][0] for rank in found] == pytest.approx(losses), name
        assert [rank[name][1] for rank in found] == pytest.approx(gradients), name


def test_torch_without_functional_autograd_says_so(run_inside: Callable[..., Any]) -> None:
    found = run_inside("torch-2.2", "aggregations.py", "gloo")
    assert [rank["functional_collective"] for rank in found] == ["NotImplementedError"] * 2
    assert [rank["weighted_all_reduce"] for rank in found] == [[2.75, 1.5], [2.75, 1.25]]
