"""The first step's gradient before and after DeepSpeed clips it, which it does inside `step()`.

Nothing is computed from DeepSpeed's own norm or formula: the norm before is that of the gradient as
it lies between backward and step, the norm after that of what torch's optimizer is handed.
"""

from __future__ import annotations

import math
from typing import Any, Iterator, Optional, Tuple

import torch
import torch.distributed as dist
from torch import Tensor

from bench.record import Clipping
from bench.worker.gradient_share import held, size_of

CHUNK = 1 << 18
"""Elements that are float64 at once."""


class ClippingWatch:
    """Sees one step of a DeepSpeed engine; every rank makes one and calls it together."""

    def __init__(self, engine: Any, device: torch.device) -> None:
        self._engine, self._device = engine, device
        self._before = self._after = (0.0, 0)
        self._hook: Any = None

    def before_optimizer(self) -> None:
        """Look at the gradient; call this between backward and `engine.step()`."""
        scale = float(getattr(self._engine.optimizer, "loss_scale", 1.0))
        shares = (held(parameter) for parameter in self._engine.module.parameters())
        self._before = _sums((share.values for share in shares if share is not None), scale)
        optimizer = _innermost(self._engine)
        if optimizer is not None:
            self._hook = optimizer.register_step_pre_hook(self._look)

    def found(self) -> Clipping:
        """What the step did; call this after it, on every rank."""
        if self._hook is not None:
            self._hook.remove()
        size = sum(map(size_of, self._engine.module.parameters()))
        sums = torch.tensor([*self._before, *self._after], dtype=torch.float64, device=self._device)
        dist.all_reduce(sums)
        square, count, square_after, count_after = sums.tolist()
        norm = _norm(square, count, size)
        after = _norm(square_after, count_after, size)
        return Clipping(
            threshold=float(self._engine.gradient_clipping()),
            norm=norm,
            norm_after=after,
            factor=after / norm if norm and after is not None else None,
        )

    def _look(self, optimizer: Any, *_: Any) -> None:
        """Add what `optimizer` is about to consume; ZeRO steps it once for each of its groups."""
        groups = optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        square, count = _sums(p.grad.detach() for p in parameters if p.grad is not None)
        self._after = (self._after[0] + square, self._after[1] + count)


def _innermost(engine: Any) -> Optional[torch.optim.Optimizer]:
    """Torch's optimizer within DeepSpeed's wrappers; None where there is none."""
    optimizer = engine.optimizer
    while optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        optimizer = getattr(optimizer, "optimizer", None)
    return optimizer


def _sums(gradients: Iterator[Tensor], scale: float = 1.0) -> Tuple[float, int]:
    """Sum of squares of `gradients / scale`, and their number of elements."""
    square, count = 0.0, 0
    for gradient in gradients:
        for part in gradient.reshape(-1).split(CHUNK):
            square += float(part.double().square().sum())
        count += gradient.numel()
    return square / scale**2, count


def _norm(square: float, count: float, size: int) -> Optional[float]:
    """The norm of a gradient of `size` elements of which all ranks together hold `count`.

    They hold each element once, or all of them each; what is more is padding, which is zero. None
    where they hold less, or the norm is not finite.
    """
    copies = int(count // size) if size else 0
    return math.sqrt(square / copies) if copies and math.isfinite(square) else None
