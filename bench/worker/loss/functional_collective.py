"""All-gather by `torch.distributed._functional_collectives`, with its autograd.

History: the successor that recent torch names in the deprecation warnings of
`torch.distributed.nn.functional`. Versions that have no autograd for it raise here, and that is
what the record then says.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch import Tensor

from bench.worker.model import ShardLoss

_NAMES = ("all_gather_single_autograd", "all_gather_tensor_autograd")  # newest name first


def aggregate(shard: ShardLoss, group: dist.ProcessGroup) -> Tensor:
    """sum(n_r m_r) / N, with a graph through every rank's m_r.

    Raises:
        NotImplementedError: this torch has no functional all-gather with autograd.
    """
    gather = next(
        (getattr(collectives, name) for name in _NAMES if hasattr(collectives, name)), None
    )
    if gather is None:
        raise NotImplementedError(
            f"torch {torch.__version__} has no functional all-gather with autograd "
            f"(looked for {', '.join(_NAMES)} in torch.distributed._functional_collectives)"
        )
    means = gather(shard.mean.reshape(1), 0, group)
    tokens = gather(shard.tokens.reshape(1), 0, group)
    return (means * tokens).sum() / tokens.sum()
