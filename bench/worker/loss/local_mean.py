"""The mean over one's own tokens, as if nothing were sharded: the common mistake.

History: what a training loop written for data parallelism does when it is handed a shard of a
sequence. It is right only where every shard has equally many valid tokens.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from bench.worker.model import ShardLoss


def aggregate(shard: ShardLoss, group: dist.ProcessGroup) -> Tensor:
    """m_r."""
    return shard.mean
