"""Differentiable all-gather of shard losses and token counts, then the weighted mean on every rank.

History: the aggregation of DeepSpeed's ALST tutorial and of Accelerate. Its backward goes
through `torch.distributed.nn.functional.all_gather`, whose NCCL path indexed by the global
rank before torch 2.3 (PyTorch issue 120213, PR 120481) and so cannot run in a subgroup.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional
from torch import Tensor

from bench.worker.model import ShardLoss


def aggregate(shard: ShardLoss, group: dist.ProcessGroup) -> Tensor:
    """sum(n_r m_r) / N, with a graph through every rank's m_r."""
    means = torch.stack(functional.all_gather(shard.mean, group=group))
    tokens = torch.stack(functional.all_gather(shard.tokens, group=group))
    return (means * tokens).sum() / tokens.sum()
