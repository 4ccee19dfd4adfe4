"""DeepSpeed Ulysses (arXiv 2309.14509): all-to-all from sequence shards to head shards and back."""

from __future__ import annotations

from deepspeed.sequence.layer import DistributedAttention
from torch import Tensor

from bench.trial import ModelSpec
from bench.worker.attention.local import causal_attention
from bench.worker.mesh import Mesh
from bench.worker.model import CoreAttention

_HEADS, _SEQUENCE, _BATCH = 2, 1, 0  # dimensions of [batch, seq, heads, head_dim]


def build(mesh: Mesh, spec: ModelSpec, within: CoreAttention = causal_attention) -> CoreAttention:
    """`DistributedAttention` around `within`, which sees whole sequences and a share of the heads.

    Where there are fewer key/value heads than ranks, each is repeated until every rank gets
    one, as DeepSpeed's own integration with transformers does.
    """
    method = DistributedAttention(within, mesh.sp_group, scatter_idx=_HEADS, gather_idx=_SEQUENCE)
    copies = max(1, mesh.sp // spec.kv_heads)

    def core(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if copies > 1:
            k, v = k.repeat_interleave(copies, dim=_HEADS), v.repeat_interleave(copies, dim=_HEADS)
        return method(q, k, v, _BATCH)

    return core
