"""Torch's own autograd code for NCCL, executed on gloo: an emulation, and labelled as one.

`torch.distributed.nn.functional` takes another path in backward when the backend is NCCL.
That path is what fails on clusters, and it is plain Python, so a laptop can run it: the
module is handed a view of `torch.distributed` that answers NCCL, refuses what NCCL refuses, and
does over gloo the collectives of that path which gloo does not have in every version.
"""

from __future__ import annotations

from typing import Any, List, Optional

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional
from torch import Tensor

_all_reduce = dist.all_reduce  # as it is now: counters that wrap it must not see our own use
_all_gather = dist.all_gather

_CONTIGUOUS = {
    "broadcast": (0,),
    "gather": (0,),
    "scatter": (0,),
    "all_gather": (1,),
    "_all_gather_base": (0, 1),
    "all_to_all_single": (0, 1),
}
"""Positions of the tensors that ProcessGroupNCCL wants contiguous (`check_gpu_single_tensor`)."""


class _NcclView:
    """`torch.distributed` with NCCL's answers; everything else is the original."""

    def __getattr__(self, name: str) -> Any:
        original = getattr(dist, name)
        if name not in _CONTIGUOUS:
            return original

        def checked(*args: Any, **kwargs: Any) -> Any:
            _require_contiguous(*(args[at] for at in _CONTIGUOUS[name] if at < len(args)))
            return original(*args, **kwargs)

        return checked

    def get_backend(self, group: Optional[dist.ProcessGroup] = None) -> str:
        return dist.Backend.NCCL

    def all_reduce(
        self,
        tensor: Tensor,
        op: Any = dist.ReduceOp.SUM,
        group: Optional[dist.ProcessGroup] = None,
    ) -> None:
        """With the average, which gloo lacks in older versions."""
        _require_contiguous(tensor)
        dist.all_reduce(tensor, op=_summed(op), group=group)
        _average(tensor, op, group)

    def reduce(
        self,
        tensor: Tensor,
        dst: int,
        op: Any = dist.ReduceOp.SUM,
        group: Optional[dist.ProcessGroup] = None,
    ) -> None:
        """With the average, too; away from `dst` the result is not specified."""
        _require_contiguous(tensor)
        dist.reduce(tensor, dst, op=_summed(op), group=group)
        _average(tensor, op, group)

    def reduce_scatter(
        self,
        output: Tensor,
        input_list: List[Tensor],
        op: Any = dist.ReduceOp.SUM,
        group: Optional[dist.ProcessGroup] = None,
    ) -> None:
        """Reduce all parts on all ranks and keep one's own."""
        _require_contiguous(output)
        parts = torch.stack([part.contiguous() for part in input_list])
        _all_reduce(parts, op=_summed(op), group=group)
        _average(parts, op, group)
        output.copy_(parts[dist.get_rank(group)])

    def _reduce_scatter_base(
        self, output: Tensor, input: Tensor, op: Any, group: Optional[dist.ProcessGroup]
    ) -> None:
        _require_contiguous(output, input)
        self.reduce_scatter(output, list(input.chunk(dist.get_world_size(group))), op, group)

    def all_to_all(
        self, outputs: List[Tensor], inputs: List[Tensor], group: Optional[dist.ProcessGroup]
    ) -> None:
        """Gather everybody's parts and keep those that are addressed to oneself."""
        own = torch.stack(inputs)
        everything = [torch.empty_like(own) for _ in outputs]
        _all_gather(everything, own, group=group)
        for output, parts in zip(outputs, everything):
            output.copy_(parts[dist.get_rank(group)])


def _summed(op: Any) -> Any:
    return dist.ReduceOp.SUM if op == dist.ReduceOp.AVG else op


def _average(total: Tensor, op: Any, group: Optional[dist.ProcessGroup]) -> None:
    if op == dist.ReduceOp.AVG:
        total.div_(dist.get_world_size(group))


def _require_contiguous(*tensors: Tensor) -> None:
    if not all(tensor.is_contiguous() for tensor in tensors):
        raise ValueError("Tensors must be contiguous")


def install() -> None:
    """Make this process's `torch.distributed.nn.functional` believe that it runs on NCCL."""
    functional.dist = _NcclView()
