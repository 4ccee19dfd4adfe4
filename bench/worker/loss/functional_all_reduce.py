"""Differentiable all-reduce of loss times tokens.

History: `torch.distributed.nn.functional.all_reduce` is what the documentation of
`torch.distributed.nn` suggests for a loss over ranks; its backward is another all-reduce.
"""

from __future__ import annotations

import torch.distributed as dist
import torch.distributed.nn.functional as functional
from torch import Tensor

from bench.worker.model import ShardLoss


def aggregate(shard: ShardLoss, group: dist.ProcessGroup) -> Tensor:
    """sum(n_r m_r) / N, with a graph through every rank's term."""
    weighted = functional.all_reduce(shard.mean * shard.tokens, group=group)
    tokens = shard.tokens.clone()
    dist.all_reduce(tokens, group=group)
    return weighted / tokens
