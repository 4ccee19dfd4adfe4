"""How each differentiable collective is called: one function a signature.

A call is handed the function, the tensors that this rank hands in, and the place it runs at, and
returns the tensors that it got, or what the variant's use makes of them. Output buffers that the
caller must provide are filled with NaN, so that one that is never written to cannot pass for an
answer.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch
import torch.distributed as dist
from torch import Tensor

from bench.worker.collectives.awaiting import awaited
from bench.worker.collectives.uses import COPIES, ROW_WEIGHT, WEIGHT
from bench.worker.collectives.variant import REDUCTIONS, Variant, heads_of, rows_sent, sequence_dim


@dataclass(frozen=True)
class Place:
    """Where a case runs."""

    group: Any
    """The process group."""
    ranks: Tuple[int, ...]
    """Its members' global ranks, in order."""
    rank: int
    """This rank's index in the group."""
    variant: Variant
    awaited: str = "direct"
    """One of `awaiting.AWAITED`; counts for functional collectives alone."""

    @property
    def size(self) -> int:
        """Ranks in the group."""
        return len(self.ranks)

    def root(self, function: Any, name: str) -> Dict[str, int]:
        """The source (`name` is `src`) or destination (`dst`) as a keyword of `function`.

        The rank in the group goes to `group_src` or `group_dst` where the function has it, and
        otherwise to where the world's rank goes.
        """
        index = self.variant.root_of(self.size)
        if self.variant.root_by == "world":
            return {name: self.ranks[index]}
        by_group = f"group_{name}"
        known = by_group in inspect.signature(function).parameters
        return {by_group if known else name: index}

    @property
    def reduce_op(self) -> Any:
        """The variant's reduction as a `ReduceOp`."""
        return getattr(dist.ReduceOp, REDUCTIONS[self.variant.reduction])


Call = Callable[[Any, List[Tensor], Place], List[Tensor]]


def _blank(like: Tensor, rows: int) -> Tensor:
    return torch.full((rows, *like.shape[1:]), float("nan"), dtype=like.dtype, device=like.device)


def _transposed(parts: List[Tensor]) -> List[Tensor]:
    # a copy, or autograd makes the gradient contiguous
    return [part.t().contiguous() for part in parts]


def _times(parts: List[Tensor], weight: Any) -> List[Tensor]:
    weight = torch.tensor(weight).to(parts[0])
    return [part @ weight for part in parts]


CONSUMED: Dict[str, Callable[[List[Tensor]], List[Tensor]]] = {
    "same_loss": lambda parts: [torch.stack(parts).square().sum() / 2],
    "matmul": lambda parts: _times([torch.cat(parts)], WEIGHT),
    "matmul_transposed": lambda parts: _times(_transposed(parts), ROW_WEIGHT),
    "sum": lambda parts: [torch.stack(parts).sum()],
    "sum_of_parts": lambda parts: [functools.reduce(torch.add, parts)],
    "expanded": lambda parts: [part.expand(COPIES, *part.shape) for part in parts],
    "cat": lambda parts: [torch.cat(parts, dim=1)],
}
"""`bench.worker.collectives.uses.USES` in torch, whose autograd then hands the gradient on."""


# torch.distributed.nn.functional ------------------------------------------------------------


def nn_all_gather(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`all_gather(tensor, group)`, and what the variant's use makes of the parts."""
    parts = list(function(given[0], group=at.group))
    return CONSUMED[at.variant.use](parts) if at.variant.use else parts


def nn_all_gather_base(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`_all_gather_base(output, tensor, group)`."""
    output = _blank(given[0], at.size * given[0].shape[0])
    return [function(output, given[0], group=at.group)]


def nn_all_reduce(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`all_reduce(tensor, op, group)`."""
    return [function(given[0], op=at.reduce_op, group=at.group)]


def nn_broadcast(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`broadcast(tensor, src, group)`."""
    return [function(given[0], group=at.group, **at.root(function, "src"))]


def nn_gather(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`gather(tensor, dst, group)`."""
    return list(function(given[0], group=at.group, **at.root(function, "dst")))


def nn_scatter(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`scatter(tensors, src, group)`."""
    return [function(given, group=at.group, **at.root(function, "src"))]


def nn_reduce(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`reduce(tensor, dst, op, group)`."""
    return [function(given[0], op=at.reduce_op, group=at.group, **at.root(function, "dst"))]


def nn_reduce_scatter(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`reduce_scatter(output, tensors, op, group)`."""
    output = _blank(given[0], given[0].shape[0])
    return [function(output, given, op=at.reduce_op, group=at.group)]


def nn_all_to_all(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`all_to_all(outputs, tensors, group)`."""
    return list(function([_blank(one, one.shape[0]) for one in given], given, group=at.group))


def nn_all_to_all_single(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`all_to_all_single(output, input, output_split_sizes, input_split_sizes, group)`."""
    if at.variant.split == "even":
        output = _blank(given[0], given[0].shape[0])
        return [function(output, given[0], group=at.group)]
    received, sent = _splits(at)
    output = _blank(given[0], sum(received))
    return [function(output, given[0], received, sent, group=at.group)]


def _splits(at: Place) -> Tuple[List[int], List[int]]:
    rows = rows_sent(at.variant, at.size)
    return [sent[at.rank] for sent in rows], rows[at.rank]


# torch.distributed._functional_collectives --------------------------------------------------


def fc_all_reduce(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`all_reduce(tensor, reduceOp, group)`."""
    return awaited(function(given[0], at.variant.reduction, at.group), at.awaited)


def fc_all_reduce_coalesced(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`all_reduce_coalesced(tensors, reduceOp, group)`."""
    return awaited(function(given, at.variant.reduction, at.group), at.awaited)


def fc_broadcast(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`broadcast(tensor, src, group)`."""
    return awaited(function(given[0], group=at.group, **at.root(function, "src")), at.awaited)


def fc_all_gather(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`all_gather_single(tensor, gather_dim, group)` and its other names."""
    return awaited(function(given[0], at.variant.dim, at.group), at.awaited)


def fc_all_gather_coalesced(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`all_gather_single_coalesced(tensors, group)` and its other name."""
    return awaited(function(given, at.group), at.awaited)


def fc_reduce_scatter(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`reduce_scatter_single(tensor, reduceOp, scatter_dim, group)` and its other names."""
    return awaited(function(given[0], at.variant.reduction, at.variant.dim, at.group), at.awaited)


def fc_reduce_scatter_coalesced(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`reduce_scatter_single_coalesced(tensors, reduceOp, scatter_dims, group)`."""
    dims = [at.variant.dim] * len(given)
    return awaited(function(list(given), at.variant.reduction, dims, at.group), at.awaited)


def fc_all_to_all_single(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`all_to_all_single(tensor, output_split_sizes, input_split_sizes, group)`."""
    received, sent = _splits(at)
    return awaited(function(given[0], received, sent, at.group), at.awaited)


def fc_permute(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`permute_tensor(tensor, src_dst, group)`: every rank sends to the next."""
    return awaited(
        function(given[0], [(r + 1) % at.size for r in range(at.size)], at.group), at.awaited
    )


# deepspeed.sequence.layer -------------------------------------------------------------------

_HEADS = 2


def ds_seq_all_to_all(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`_SeqAllToAll.apply(group, tensor, scatter_idx, gather_idx, batch_dim_idx, …)`."""
    sequence = sequence_dim(at.variant)
    scatter, gather = (_HEADS, sequence) if at.variant.scatter == "heads" else (sequence, _HEADS)
    arguments = [at.group, given[0], scatter, gather, at.variant.batch_dim]
    takes_heads = "num_kv_heads" in inspect.signature(function.forward).parameters
    if takes_heads and at.variant.split == "uneven":
        heads = sum(heads_of(at.variant, at.size))
        arguments += [None, None, None, True, heads]  # stream, handle, type, is_fwd
    return [function.apply(*arguments)]


def ds_dim_zero_class(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`_DimZeroAllToAll.apply(group, tensor)`."""
    return [function.apply(at.group, given[0])]


def ds_dim_zero_function(function: Any, given: List[Tensor], at: Place) -> List[Tensor]:
    """`_dim_zero_all_to_all(group, tensor)`, the later form: its groups must be registered."""
    import deepspeed.sequence.layer as layer

    layer.register_all_to_all_group(at.group)
    return [function(at.group, given[0])]


@contextlib.contextmanager
def deepspeed_state(at: Place) -> Iterator[None]:
    """What DeepSpeed keeps per process and its uneven all-to-all reads: the sequence-parallel
    rank, and (up to 0.19) the number of heads, which its first uneven call sets for ever.
    """
    try:
        from deepspeed.module_inject import tp_shard
        from deepspeed.utils import groups
    except ImportError:
        yield
        return
    set_heads = getattr(tp_shard, "set_num_kv_heads", None)
    mpu = groups.mpu
    groups.mpu = _SequenceParallelRank(at.rank)
    heads = sum(heads_of(at.variant, at.size)) if at.variant.split == "uneven" else None
    if set_heads is not None:
        before = tp_shard.get_num_kv_heads()
        set_heads(heads)
    try:
        yield
    finally:
        groups.mpu = mpu
        if set_heads is not None:
            set_heads(before)


@dataclass(frozen=True)
class _SequenceParallelRank:
    """As much of an mpu as the all-to-all asks for."""

    rank: int

    def get_sequence_parallel_rank(self) -> int:
        return self.rank
