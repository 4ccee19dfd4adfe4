"""Ulysses' all-to-alls against ring attention: which sends less, and which takes less time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.theory.cluster import Cluster
from bench.theory.step_time import CALLS_PER_PASS, all_to_all_s
from bench.theory.traffic import PassBytes, ring_bytes_per_layer, ulysses_bytes_per_layer

if TYPE_CHECKING:
    from bench.trial import ModelSpec


def ring_over_ulysses(
    model: ModelSpec, sp: int, seq_len: int, micro_batch: int = 1, element_bytes: int = 2
) -> float:
    """Bytes that ring attention sends over those of Ulysses, forward and backward together.

    3 K P / (2 (H + max(K, P))) without recomputation: below 1, the ring sends less. With as many
    kv heads as query heads Ulysses sends less from P = 2 on; few kv heads favour the ring.
    Raises ValueError where heads or sequence do not divide by sp, and for sp=1.
    """
    if sp == 1:
        raise ValueError("sp=1 sends nothing; the ratio is that of two or more ranks")
    shape = (sp, micro_batch, seq_len, element_bytes)
    ring = ring_bytes_per_layer(model, *shape).total
    return ring / ulysses_bytes_per_layer(model, *shape).total


def ulysses_layer_s(sent: PassBytes, sp: int, cluster: Cluster) -> float:
    """Seconds of one layer's all-to-alls in a step, at the cluster's full rates."""
    passes = 2 + (sent.recompute > 0)
    return all_to_all_s(sent.total, CALLS_PER_PASS * passes, sp, cluster)


def ring_layer_s(sent: PassBytes, sp: int, cluster: Cluster) -> float:
    """Seconds of one layer's ring in a step, at the cluster's full rates, nothing hidden.

    Everyone passes on at the same time, in sp - 1 rounds a pass; the slowest link of the ring
    counts, which is one between nodes as soon as the group spans two.
    """
    if sp == 1:
        return 0.0
    link = cluster.intra if sp <= cluster.gpus_per_node else cluster.inter
    rounds = (sp - 1) * (2 + (sent.recompute > 0))
    return sent.total / link.bandwidth + rounds * link.latency_s
