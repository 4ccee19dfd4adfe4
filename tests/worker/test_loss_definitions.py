"""Two losses of one batch, by hand: two replicas with 55 and 21 valid labels, 76 in all."""

from __future__ import annotations

import pytest

from bench.worker.batch import IGNORED, global_batch
from bench.worker.loss_definitions import OTHER, ratios, valid_labels, weights
from tests.factories import configuration

LABELS = [55, 21]


def test_replicas_weigh_the_same_or_as_many_as_they_have_tokens() -> None:
    assert weights("replica_mean", LABELS) == [1 / 110, 1 / 42]
    assert weights("token_mean", LABELS) == [1 / 76, 1 / 76]


def test_the_other_definition_is_a_multiple_for_each_replica() -> None:
    """A token of the fuller replica counts 110/76 times as much, one of the other 42/76."""
    assert ratios("replica_mean", LABELS) == pytest.approx([110 / 76, 42 / 76])
    assert ratios("token_mean", LABELS) == pytest.approx([76 / 110, 76 / 42])
    assert OTHER == {"replica_mean": "token_mean", "token_mean": "replica_mean"}


def test_with_equally_many_labels_they_are_one() -> None:
    assert ratios("replica_mean", [7, 7, 7]) == pytest.approx([1, 1, 1])


def test_a_batch_without_a_label_weighs_nothing_by_zero() -> None:
    assert weights("token_mean", [0, 0]) == [1.0, 1.0]
    assert weights("replica_mean", [0, 4]) == [1 / 2, 1 / 8]


@pytest.mark.parametrize("mask", ["none", "prompt", "ragged", "empty_shard"])
def test_which_masks_make_replicas_differ(mask: str) -> None:
    one = configuration(mask=mask, seq_len=64)
    batch = global_batch(one)
    labels = valid_labels(batch)
    assert labels == [int((row != IGNORED).sum()) for row in batch.labels]
    assert one.dp == 2
    assert (len(set(labels)) > 1) == one.ragged_replicas == (mask == "ragged")
    assert not configuration(mask=mask, sp=4).ragged_replicas
