"""Label shift, positions and masks across shards."""

from __future__ import annotations

import numpy as np
import pytest

from bench.worker.batch import IGNORED, global_batch, shard
from tests.conftest import configure


def test_golden_tokens() -> None:
    """Every version must see this very data."""
    batch = global_batch(configure(seq_len=8, mask="none"))
    assert batch.tokens[0, 0].tolist() == GOLDEN_TOKENS


GOLDEN_TOKENS = [27, 50, 57, 28, 3, 29, 55, 60]


def test_labels_are_shifted_before_sharding() -> None:
    configuration = configure(world=4, sp=4, seq_len=16, mask="none")
    whole = global_batch(configuration)
    shards = [shard(whole, 0, rank, 4) for rank in range(4)]
    assert [s.tokens.shape for s in shards] == [(1, 4)] * 4
    for left, right in zip(shards, shards[1:], strict=False):
        assert left.labels[0, -1] == right.tokens[0, 0]  # the label across the boundary
    joined = np.concatenate([s.labels for s in shards], axis=1)
    assert joined[0, :-1].tolist() == whole.tokens[0, 0, 1:].tolist()
    assert IGNORED not in joined


def test_positions_are_global() -> None:
    whole = global_batch(configure(world=4, sp=2, seq_len=8))
    assert shard(whole, 1, 0, 2).positions.tolist() == [[0, 1, 2, 3]]
    assert shard(whole, 1, 1, 2).positions.tolist() == [[4, 5, 6, 7]]


def test_replicas_and_sequences_differ() -> None:
    batch = global_batch(configure(world=4, sp=2, micro_batch=2, seq_len=64))
    rows = batch.tokens.reshape(4, 64)
    assert len({row.tobytes() for row in rows}) == 4


def test_ragged_shards_have_unequal_counts() -> None:
    configuration = configure(world=4, sp=2, seq_len=256, mask="ragged")
    whole = global_batch(configuration)
    counts = [
        int((shard(whole, replica, rank, 2).labels != IGNORED).sum())
        for replica in range(2)
        for rank in range(2)
    ]
    assert len(set(counts)) == 4
    assert all(0 < count < 128 for count in counts)


@pytest.mark.parametrize(
    ("mask", "valid"),
    [("none", [4, 4, 4, 4]), ("prompt", [0, 4, 4, 4]), ("empty_shard", [4, 4, 4, 0])],
    ids=["none", "prompt", "empty_shard"],
)
def test_valid_labels_per_shard(mask: str, valid: list[int]) -> None:
    whole = global_batch(configure(world=4, sp=4, seq_len=16, mask=mask))
    counts = [int((shard(whole, 0, rank, 4).labels != IGNORED).sum()) for rank in range(4)]
    assert counts == valid
