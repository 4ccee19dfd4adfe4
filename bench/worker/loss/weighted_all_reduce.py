"""In-place all-reduce of loss times tokens and of tokens: the workaround for torch older than 2.3.

History: DeepSpeed's regression test for issue 7672 (PR 7809) uses it where the differentiable
all-gather fails. `torch.distributed.all_reduce` is no autograd function: the value becomes the
sum over the group, while autograd still sees only this rank's own term.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from bench.worker.model import ShardLoss


def aggregate(shard: ShardLoss, group: dist.ProcessGroup) -> Tensor:
    """sum(n_r m_r) / N in value; its graph holds n_r m_r / N of this rank alone."""
    weighted = shard.mean * shard.tokens
    tokens = shard.tokens.clone()
    dist.all_reduce(weighted, group=group)
    dist.all_reduce(tokens, group=group)
    return weighted / tokens
