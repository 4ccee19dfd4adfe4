"""Attention within one rank: for sp=1, and for the reference."""

from __future__ import annotations

from torch import Tensor

from bench.trial import ModelSpec
from bench.worker import sdpa
from bench.worker.mesh import Mesh
from bench.worker.model import CoreAttention


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled-dot-product attention over a whole sequence, causal.

    q is [batch, seq, heads, head_dim]; k and v have heads or a divisor of heads. Their heads
    are repeated here and not by SDPA's `enable_gqa`, which torch 2.5 brought, so that every
    version does the same work.
    """
    groups = q.shape[2] // k.shape[2]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return sdpa.causal(q, k, v).transpose(1, 2)


def build(mesh: Mesh, spec: ModelSpec) -> CoreAttention:
    """The same function on every mesh; `Configuration` refuses sp > 1."""
    return causal_attention
