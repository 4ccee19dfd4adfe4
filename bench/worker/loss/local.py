"""Each rank back-propagates its own share, with no communication in autograd.

History: the form that needs no differentiable collective at all; only the token count is
reduced, and the sum over ranks of what is back-propagated is the loss.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from bench.worker.model import ShardLoss


def aggregate(shard: ShardLoss, group: dist.ProcessGroup) -> Tensor:
    """n_r m_r / N: this rank's share of the mean, in value and in graph."""
    tokens = shard.tokens.clone()
    dist.all_reduce(tokens, group=group)
    return shard.mean * shard.tokens / tokens
