"""The recipes by hand on two ranks, where one or both have no label and a cross-entropy of NaN.

With logits (w x, 0) and label 0 the cross-entropy is log(1 + exp(-w x)), its slope at w = 1
-x / (1 + exp(x)). One rank has all the labels, so the mean is that rank's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.environment

LOSS = math.log1p(math.exp(-2.0))  # of the rank whose x is 2
SLOPE = -2.0 / (1.0 + math.exp(2.0))
OWN_SHARE = ("weighted_all_reduce", "local", "token_mean")
RECIPES = {*OWN_SHARE, "all_gather", "functional_all_reduce", "functional_collective"}


@pytest.mark.parametrize("environment", ["torch-2.2", "torch-2.13"])
def test_a_rank_without_labels_counts_nothing(
    run_inside: Callable[..., Any], environment: str
) -> None:
    full, empty = run_inside(environment, "recipes.py", "3", "0")
    assert set(full) == set(empty) == RECIPES
    for name in RECIPES:
        if environment == "torch-2.2" and name == "functional_collective":
            assert full[name] == empty[name] == "AttributeError"
            continue
        times = 1 if name in OWN_SHARE else 2  # both ranks' losses come back to the full one
        assert full[name] == pytest.approx([LOSS, times * SLOPE]), name
        share = 0.0 if name == "local" else LOSS
        assert empty[name] == [pytest.approx(share), 0.0], name


def test_a_replica_without_labels_has_no_loss_and_no_gradient(
    run_inside: Callable[..., Any],
) -> None:
    for found in run_inside("torch-2.13", "recipes.py", "0", "0"):
        assert set(found) == RECIPES
        assert all(outcome == [0.0, 0.0] for outcome in found.values()), found
