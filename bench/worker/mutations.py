"""Faults that a judge of gradients must see, each with the verdict that it must give.

Every fault is put where it would happen: into the data, the attention, the loss or the
gradient on its way to the optimizer. Nothing of the judge knows of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from bench.trial import Configuration, ModelSpec
from bench.worker.attention import ulysses
from bench.worker.attention.local import causal_attention
from bench.worker.batch import IGNORED
from bench.worker.mesh import Mesh
from bench.worker.model import CoreAttention, ShardLoss
from bench.worker.reference import Reference
from bench.worker.training import Trainer


@dataclass(frozen=True)
class Mutation:
    """One fault; what is not given stays as it is."""

    verdict: str
    """What the judge must say."""
    factor: Callable[[int], float] = lambda sp: 1.0
    """What the loss is multiplied by, given sp; the scale that a `scaled` must tell."""
    loss: Callable[[Tensor, Mesh], Tensor] = lambda loss, mesh: loss
    data: Callable[[List[Tensor], Mesh], List[Tensor]] = lambda batch, mesh: batch
    """Changes tokens, labels and positions, each [batch, seq/sp]."""
    attention: Optional[Callable[[Mesh, ModelSpec], CoreAttention]] = None
    gradients: Dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """Changes this rank's gradient of a parameter, by name, before it is reduced."""


def trainer(mutation: Mutation) -> Any:
    """A `Trainer` that has the fault `mutation`."""

    class Mutated(Trainer):
        def __init__(
            self,
            configuration: Configuration,
            mesh: Mesh,
            reference: Reference,
            device: torch.device,
            beat: Callable[[], None] = lambda: None,
        ) -> None:
            super().__init__(configuration, mesh, reference, device, beat)
            module, right = self.engine.module, self._aggregate
            self._batch = mutation.data(self._batch, mesh)
            if mutation.attention is not None:
                core = mutation.attention(mesh, configuration.model)
                for block in module.blocks:
                    block.attention._core = (core,)
            for name, hook in mutation.gradients.items():
                module.get_parameter(name).register_hook(hook)

            def aggregate(shard: ShardLoss, group: dist.ProcessGroup) -> Tensor:
                loss = mutation.loss(right(shard, group), mesh)
                return loss * mutation.factor(mesh.sp)

            self._aggregate = aggregate

    return Mutated


def _drop_a_rank(loss: Tensor, mesh: Mesh) -> Tensor:
    return loss * 0.0 if mesh.rank == 1 else loss


def _drop_boundary_labels(batch: List[Tensor], mesh: Mesh) -> List[Tensor]:
    """As if labels were shifted within each shard: the last has no successor there."""
    tokens, labels, positions = batch
    if mesh.sp_rank < mesh.sp - 1:
        labels = labels.clone()
        labels[:, -1] = IGNORED
    return [tokens, labels, positions]


def _restart_positions(batch: List[Tensor], mesh: Mesh) -> List[Tensor]:
    tokens, labels, positions = batch
    return [tokens, labels, positions - positions[:, :1]]


def _own_shard_only(mesh: Mesh, spec: ModelSpec) -> CoreAttention:
    return causal_attention


def _not_causal(mesh: Mesh, spec: ModelSpec) -> CoreAttention:
    def everywhere(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        groups = q.shape[2] // k.shape[2]
        k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    return ulysses.build(mesh, spec, everywhere)


class _Stale(torch.autograd.Function):
    """Attends rightly, but differentiates at the keys and values of another block."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
        ctx.save_for_backward(q, k.roll(block, 1), v.roll(block, 1))
        return causal_attention(q, k, v)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            output = causal_attention(*inputs)
        return (*torch.autograd.grad(output, inputs, upstream), None)


def _stale_keys_and_values(mesh: Mesh, spec: ModelSpec) -> CoreAttention:
    """A buffer that already holds the neighbour's shard, as when blocks travel round a ring."""

    def stale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _Stale.apply(q, k, v, q.shape[1] // mesh.sp)

    return ulysses.build(mesh, spec, stale)


def _poison(gradient: Tensor) -> Tensor:
    if dist.get_rank() != 0:
        return gradient
    poisoned = gradient.clone()
    poisoned.view(-1)[0] = float("nan")
    return poisoned


MUTATIONS: Dict[str, Mutation] = {
    "untouched": Mutation("match"),
    "times_sp": Mutation("scaled", factor=float),
    "scale_1_01": Mutation("scaled", factor=lambda sp: 1.01),
    "no_gradient": Mutation("none", factor=lambda sp: 0.0),
    "rank_dropped": Mutation("wrong", loss=_drop_a_rank),
    "own_shard_only": Mutation("wrong", attention=_own_shard_only),
    "boundary_label_dropped": Mutation("wrong", data=_drop_boundary_labels),
    "positions_restarted": Mutation("wrong", data=_restart_positions),
    "stale_key_value": Mutation("wrong", attention=_stale_keys_and_values),
    "not_causal": Mutation("wrong", attention=_not_causal),
    "parameter_zero": Mutation(
        "wrong", gradients={"blocks.0.attention.k.weight": torch.zeros_like}
    ),
    "nan_in_one_element": Mutation("wrong", gradients={"blocks.1.ffn.up.weight": _poison}),
}
"""By name; conf/experiment/mutations.yaml lists the same names."""
