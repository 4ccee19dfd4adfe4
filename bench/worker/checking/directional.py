"""The gradient's scale without a reference gradient: forward passes at weights moved along it.

What is compared is the reference's loss: spbench's own batch, token sums reduced over all ranks in
float64, never the trial's data or its aggregation, with which a wrong gradient would agree.
What it cannot see: a fault of the forward pass itself, since the same forward is moved.
`bench.worker.metrics.directional` has the arithmetic, `docs/correctness-at-scale.md` the whole.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad
from torch import Tensor

from bench.worker.batch import global_batch, shard
from bench.worker.checking.exact import loss_scale
from bench.worker.mesh import Mesh
from bench.worker.metrics.countsketch import CHUNK
from bench.worker.metrics.directional import (
    FACTORS,
    MARGINS,
    Incomplete,
    Probe,
    Three,
    blindness,
    judge,
)
from bench.worker.rank import Rank
from bench.worker.reference import Reference
from bench.worker.training import Trainer

LAYER_GROUPS = 2
"""Blocks that the layers are taken in; embedding and output are blocks of their own."""
CHANGE = {torch.float32: 2e-3, torch.bfloat16: 1e-2}
"""Share of the loss that the first steps tried are to change it by: well above rounding."""
LENGTHENINGS = 12
"""How often a step is doubled where rounding takes away most of it."""
REACHED = 0.5
"""Share of what a step was to be that may be left of it."""
ATTEMPTS = 4
SHORTER = 3.0
"""What the steps are divided by where the loss is no straight line over them."""


def check(rank: Rank, trainer: Trainer, mesh: Mesh) -> Dict[str, Any]:
    """The field `gradient`, or `gradient_reason` where the change drowns in rounding."""
    return _Directional(rank, trainer, mesh).fields()


@dataclass(frozen=True)
class _Block:
    name: str
    parameters: List[Tuple[str, torch.nn.Parameter]]


class _Directional:
    """One rank's part; every rank calls the same collectives in the same order."""

    def __init__(self, rank: Rank, trainer: Trainer, mesh: Mesh) -> None:
        c = rank.configuration
        self._rank, self._mesh = rank, mesh
        self._module = trainer.engine.module
        self._weights = Reference(rank.reference, c.model).weights()
        self._scale = loss_scale(trainer)
        own = shard(global_batch(c), mesh.replica, mesh.sp_rank, mesh.sp)
        self._batch = [torch.from_numpy(array).to(rank.device) for array in own]

    def fields(self) -> Dict[str, Any]:
        blocks = _blocks(self._module)
        own, gg = self._survey(blocks)
        lacking = self._of_all_ranks(own)
        if lacking:  # nobody moves unless all can
            return self._judged([], lacking, ranks_agree=own == lacking)
        loss = self._loss()
        probes = [self._probe(block, gg[block.name], loss) for block in blocks]
        hidden = blindness(probes)
        if self._anywhere(hidden is not None):
            return {"gradient_reason": hidden or "not compared: rounding hides the change"}
        return self._judged(probes, lacking)

    def _judged(
        self, probes: List[Probe], lacking: Incomplete, ranks_agree: bool = True
    ) -> Dict[str, Any]:
        margin = MARGINS[self._rank.configuration.precision]
        count = len(list(self._module.parameters()))
        error = judge(probes, lacking, margin, count, self._rank.index)
        return {"gradient": {**error.model_dump(), "ranks_agree": ranks_agree}}

    def _survey(self, blocks: List[_Block]) -> Tuple[Incomplete, Dict[str, float]]:
        """What this rank's gradient lacks, and <g, g> of every block."""
        lacking, gg = Incomplete([], [], []), {block.name: 0.0 for block in blocks}
        for block in blocks:
            for name, parameter in block.parameters:
                gradient = self._gradient(parameter)
                size = None if gradient is None else _dot(gradient, gradient)
                if size is None:
                    lacking.missing.append(name)
                elif not math.isfinite(size):
                    lacking.nonfinite.append(name)
                elif size == 0.0:
                    lacking.zero.append(name)
                else:
                    gg[block.name] += size
        return lacking, gg

    def _probe(self, block: _Block, gg: float, loss: float) -> Probe:
        """Move a block forth and back along rank 0's gradient, by steps that are short enough."""
        step = self._lengthened(block, CHANGE[block.parameters[0][1].dtype] * loss / (2.0 * gg), gg)
        for _ in range(ATTEMPTS):
            step = self._from_first(step)
            predicted, observed = zip(*(self._across(block, factor * step) for factor in FACTORS))
            probe = Probe(block.name, gg, Three(*predicted), Three(*observed))
            shorter = min(predicted) > 0.0 and not probe.straight
            if not self._from_first(float(shorter)):
                break
            step /= SHORTER
        self._move(block, 0.0)
        return probe

    def _lengthened(self, block: _Block, step: float, gg: float) -> float:
        """`step`, or a longer one by which the block moves as far along g as `step` was to move it.

        The more elements a model has, the less each moves: in bfloat16 most of 8 billion would
        round back to where they were.
        """
        step = self._from_first(step)
        meant = step * gg
        for _ in range(LENGTHENINGS):
            along = self._move(block, step)
            if not self._from_first(float(along < REACHED * meant)):
                break
            step *= 2.0
        self._move(block, 0.0)
        return step

    def _across(self, block: _Block, step: float) -> Tuple[float, float]:
        """<g, displacement> from behind to ahead, and by how much the loss is higher ahead."""
        ahead, up = self._at(block, step)
        behind, down = self._at(block, -step)
        return ahead - behind, up - down

    def _at(self, block: _Block, step: float) -> Tuple[float, float]:
        """<g, displacement> of this rank's g, and the loss, with `block` moved by `step`."""
        along = self._move(block, step)
        return along, self._loss()

    def _move(self, block: _Block, step: float) -> float:
        """Put a block's weights at the initial ones + step · g; 0 restores them bit by bit.

        Wherever they were moved to before makes no difference.

        The sum is made in float32, as DeepSpeed keeps its masters, and rounded to the dtype that
        the model computes in. Returns <g, the displacement that this really is>.
        """
        along = 0.0
        for name, parameter in block.parameters:
            gradient = self._gradient(parameter) if step else None
            with _whole(parameter), torch.no_grad():
                start = self._weights[name].to(parameter.device).to(parameter.dtype)
                if gradient is None:
                    parameter.data.copy_(start)
                    continue
                direction = gradient.clone()
                dist.broadcast(direction, 0)
                moved = (start.float() + step * direction).to(parameter.dtype)
                along += _dot(gradient, moved.float() - start.float())
                parameter.data.copy_(moved)
        return along

    def _loss(self) -> float:
        """The reference's loss at the weights as they are, the same number on every rank."""
        self._rank.enter("gradient", 0)
        with torch.no_grad():
            mean, tokens = self._module(*self._batch)
        sums = torch.stack([mean.double() * tokens.double(), tokens.double()])
        if self._rank.configuration.reference == "token_mean":
            dist.all_reduce(sums)
            return float(sums[0] / sums[1].clamp(min=1.0))
        dist.all_reduce(sums, group=self._mesh.sp_group)
        replica = sums[0] / sums[1].clamp(min=1.0)
        dist.all_reduce(replica)  # every replica as often as it has ranks
        return float(replica) / self._mesh.world

    def _gradient(self, parameter: torch.nn.Parameter) -> Optional[Tensor]:
        """The whole reduced gradient before clipping, float32 on the rank's device."""
        self._rank.enter("gradient", 0)
        full = safe_get_full_grad(parameter)
        return None if full is None else full.to(self._rank.device).float() / self._scale

    def _of_all_ranks(self, own: Incomplete) -> Incomplete:
        """What the gradient of any rank lacks: a fault of one is found, whichever reports."""
        names = [name for name, _ in self._module.named_parameters()]
        lists = (own.missing, own.zero, own.nonfinite)
        here = [[float(name in lacking) for name in names] for lacking in lists]
        flags = torch.tensor(here, device=self._rank.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        found = ([n for n, flag in zip(names, kind) if flag] for kind in flags.tolist())
        return Incomplete(*found)

    def _anywhere(self, here: bool) -> bool:
        flag = torch.tensor([float(here)], device=self._rank.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def _from_first(self, value: float) -> float:
        shared = torch.tensor([value], dtype=torch.float64, device=self._rank.device)
        dist.broadcast(shared, 0)
        return float(shared.item())


def _blocks(module: Any) -> List[_Block]:
    """Embedding, groups of layers, norm and output, in the model's order."""
    layers = len(module.blocks)
    groups = min(LAYER_GROUPS, layers)
    found: Dict[str, List[Tuple[str, torch.nn.Parameter]]] = {}
    for name, parameter in module.named_parameters():
        parts = name.split(".")
        if parts[0] == "blocks":
            group = int(parts[1]) * groups // layers
            inside = [at for at in range(layers) if at * groups // layers == group]
            label = (
                f"layers {inside[0]} to {inside[-1]}" if len(inside) > 1 else f"layer {inside[0]}"
            )
        else:
            label = "embedding" if parts[0] == "embedding" else "norm and head"
        found.setdefault(label, []).append((name, parameter))
    return [_Block(label, parameters) for label, parameters in found.items()]


@contextmanager
def _whole(parameter: torch.nn.Parameter) -> Iterator[None]:
    """The whole parameter, also where ZeRO 3 keeps a share of it; rank 0's value is kept."""
    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        yield


def _dot(a: Tensor, b: Tensor) -> float:
    """<a, b> in float64, some elements at a time: an 8B model's embedding has 4 GB in float64."""
    pairs = zip(a.reshape(-1).split(CHUNK), b.reshape(-1).split(CHUNK))
    return float(sum(torch.dot(one.double(), other.double()) for one, other in pairs))
