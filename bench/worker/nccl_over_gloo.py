"""Torch's own autograd code for NCCL, executed on gloo: an emulation, and labelled as one.

`torch.distributed.nn.functional` takes another path in backward when the backend is NCCL.
That path is what fails on clusters, and it is plain Python, so a laptop can run it: the
module is handed a view of `torch.distributed` that answers NCCL and does over gloo the one
collective of that path which gloo does not have in every version.
"""

from __future__ import annotations

from typing import Any, List, Optional

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional
from torch import Tensor

_all_reduce = dist.all_reduce  # as it is now: counters that wrap it must not see our own use


class _NcclView:
    """`torch.distributed` with NCCL's answers; everything else is the original."""

    def __getattr__(self, name: str) -> Any:
        return getattr(dist, name)

    def get_backend(self, group: Optional[dist.ProcessGroup] = None) -> str:
        return dist.Backend.NCCL

    def reduce_scatter(
        self,
        output: Tensor,
        input_list: List[Tensor],
        op: Any = dist.ReduceOp.SUM,
        group: Optional[dist.ProcessGroup] = None,
    ) -> None:
        """Reduce all parts on all ranks and keep one's own."""
        parts = torch.stack([part.contiguous() for part in input_list])
        _all_reduce(parts, op=op, group=group)
        output.copy_(parts[dist.get_rank(group)])


def install() -> None:
    """Make this process's `torch.distributed.nn.functional` believe that it runs on NCCL."""
    functional.dist = _NcclView()
