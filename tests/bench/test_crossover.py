"""Ulysses against ring attention, by hand."""

from __future__ import annotations

import pytest

from bench.theory import (
    Cluster,
    Link,
    PassBytes,
    ring_layer_s,
    ring_over_ulysses,
    ulysses_layer_s,
)
from bench.trial import ModelSpec


def model(kv_heads: int) -> ModelSpec:
    return ModelSpec(name="m", layers=1, hidden=64, heads=32, kv_heads=kv_heads, ffn=8, vocab=8)


@pytest.mark.parametrize(
    ("kv_heads", "sp", "ratio"),
    [
        pytest.param(32, 2, 3 * 32 * 2 / (2 * 64), id="MHA: Ulysses from the start"),
        pytest.param(8, 8, 3 * 8 * 8 / (2 * 40), id="GQA"),
        pytest.param(1, 8, 3 * 8 / (2 * 40), id="MQA: the ring, kv heads replicated"),
        pytest.param(1, 32, 3 * 32 / (2 * 64), id="MQA at sp=32"),
    ],
)
def test_ratio_of_bytes(kv_heads, sp, ratio):
    assert ring_over_ulysses(model(kv_heads), sp, seq_len=64) == pytest.approx(ratio)


def test_one_rank_has_no_ratio():
    with pytest.raises(ValueError, match="sp=1"):
        ring_over_ulysses(model(8), 1, seq_len=64)


def test_seconds():
    cluster = Cluster("c", 4, 1, 1, 1, intra=Link(1e3, 0.01), inter=Link(1e2, 0.1))
    sent = PassBytes(forward=300, recompute=0, backward=600)
    assert ring_layer_s(sent, 4, cluster) == pytest.approx(0.9 + 3 * 2 * 0.01)
    assert ring_layer_s(sent, 8, cluster) == pytest.approx(9 + 7 * 2 * 0.1)
    assert ring_layer_s(PassBytes(300, 300, 600), 4, cluster) == pytest.approx(1.2 + 3 * 3 * 0.01)
    assert ring_layer_s(sent, 1, cluster) == 0
    assert ulysses_layer_s(sent, 4, cluster) == pytest.approx(0.9 + 8 * 0.01)
    assert ulysses_layer_s(PassBytes(300, 300, 600), 4, cluster) == pytest.approx(1.2 + 12 * 0.01)
