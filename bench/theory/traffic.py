"""Bytes on the wire: what ranks must send each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.trial import ModelSpec


@dataclass(frozen=True)
class PassBytes:
    """Bytes that one rank sends in the passes of a step (or of one layer of it)."""

    forward: int
    recompute: int
    """Forward again, in backward, under activation checkpointing; else 0."""
    backward: int

    @property
    def total(self) -> int:
        """Bytes of all passes."""
        return self.forward + self.recompute + self.backward

    def times(self, count: int) -> PassBytes:
        """The same for `count` layers."""
        return PassBytes(self.forward * count, self.recompute * count, self.backward * count)


def ulysses_bytes_per_layer(
    model: ModelSpec, sp: int, micro_batch: int, seq_len: int, element_bytes: int
) -> PassBytes:
    """Bytes that one rank sends to others in a layer's all-to-alls.

    Forward: e b (S/P) d (2H + 2K') (P-1)/P for q, k, v and the output, where K' = max(K, P)
    since kv heads are replicated until every rank has one. Backward is the same, and under
    activation checkpointing forward happens twice. Source: arXiv 2309.14509, section 3.

    Raises ValueError where heads or sequence do not divide by sp.
    """
    kv_heads = max(model.kv_heads, sp)
    for name, value in (("seq_len", seq_len), ("heads", model.heads), ("kv_heads", kv_heads)):
        if value % sp:
            raise ValueError(f"{name}={value} is not divisible by sp={sp}")
    heads_per_peer = 2 * (model.heads + kv_heads) // sp
    tokens = micro_batch * seq_len // sp
    sent = element_bytes * tokens * model.head_dim * heads_per_peer * (sp - 1)
    return PassBytes(sent, sent if model.activation_checkpointing else 0, sent)


def ulysses_bytes_per_step(
    model: ModelSpec, sp: int, micro_batch: int, seq_len: int, element_bytes: int
) -> PassBytes:
    """Bytes that one rank sends to others in the all-to-alls of all layers of a step."""
    per_layer = ulysses_bytes_per_layer(model, sp, micro_batch, seq_len, element_bytes)
    return per_layer.times(model.layers)


def ring_bytes_per_layer(
    model: ModelSpec, sp: int, micro_batch: int, seq_len: int, element_bytes: int
) -> PassBytes:
    """Bytes that one rank sends in a layer of ring attention.

    Forward: e b 2K d S (P-1)/P, every rank passing on k and v P-1 times; backward twice that,
    since their gradients travel along. Source: arXiv 2310.01889, section 3.
    """
    if seq_len % sp:
        raise ValueError(f"seq_len={seq_len} is not divisible by sp={sp}")
    block = element_bytes * micro_batch * 2 * model.kv_heads * model.head_dim * (seq_len // sp)
    sent = block * (sp - 1)
    return PassBytes(sent, sent if model.activation_checkpointing else 0, 2 * sent)


def all_to_all_bus_bandwidth(size_bytes: int, seconds: float, ranks: int) -> float:
    """Bus bandwidth of an all-to-all [bytes/s]: bytes/time (n-1)/n.

    `size_bytes` is what each rank hands in, its own part included.
    Source: nccl-tests, doc/PERFORMANCE.md.
    """
    return size_bytes / seconds * (ranks - 1) / ranks
