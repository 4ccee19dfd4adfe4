"""The first loss beside a forward pass, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bench.controller import first_loss
from bench.record import FirstLoss
from tests import factories

# sp 2, two replicas: (1 * 3 + 4 * 1) / 4 = 1.75 and (2 * 2 + 0 * 0) / 2 = 2; mean 1.875
SHARDS = [[1.0, 3.0], [4.0, 1.0], [2.0, 2.0], [0.0, 0.0]]


def mean_loss(shards: list[list[float]], **fields: Any) -> float | None:
    return first_loss.mean_loss(shards, factories.configuration(world=len(shards), **fields))


def test_labels_weigh_within_a_replica_and_replicas_weigh_the_same() -> None:
    assert mean_loss(SHARDS, sp=2) == 1.875
    assert mean_loss(SHARDS, sp=4) == pytest.approx(11 / 6)  # (3 + 4 + 4) / 6
    assert mean_loss([[math.nan, 1.0]], sp=1) is None
    assert mean_loss([[0.0, 0.0]], sp=1) == 0.0


def test_by_the_token_mean_all_labels_weigh_the_same() -> None:
    assert mean_loss(SHARDS, sp=2, reference="token_mean") == pytest.approx(11 / 6)
    found = first_loss.judge(factories.configuration(reference="token_mean"), SHARDS, 11 / 6)
    assert found is not None
    assert found.agrees


@pytest.mark.parametrize(
    ("fields", "reference", "agrees"),
    [
        ({}, 1.875, True),
        ({}, 1.875 * (1 + 2.9e-7), True),
        ({}, 1.875 * (1 + 3.1e-7), False),
        ({"dtype": "bfloat16"}, 1.875 * (1 + 0.9e-3), True),
        ({"dtype": "bfloat16"}, 1.875 * (1 + 1.1e-3), False),
        ({"matmul": "tf32"}, 1.875 * (1 + 0.9e-3), True),
    ],
)
def test_a_difference_beyond_rounding_is_seen(
    fields: dict[str, str], reference: float, agrees: bool
) -> None:
    found = first_loss.judge(factories.configuration(sp=2, **fields), SHARDS, reference)
    assert found is not None
    assert (found.loss, found.reference, found.agrees) == (1.875, reference, agrees)


def test_a_loss_that_is_no_number_agrees_with_nothing() -> None:
    shards = [[math.inf, 1.0], *SHARDS[1:]]
    found = first_loss.judge(factories.configuration(sp=2), shards, 1.875)
    assert found is not None
    assert (found.loss, found.agrees) == (None, False)


def test_why_there_is_no_reference_is_kept_and_nothing_where_none_was_asked_for() -> None:
    configuration = factories.configuration(sp=2)
    why = "not compared: it takes 3 h"
    assert first_loss.judge(configuration, SHARDS, why) == FirstLoss(loss=1.875, reason=why)
    assert first_loss.judge(configuration, SHARDS, None) is None
    assert first_loss.judge(configuration, [], 1.875) is None  # a trial that failed
