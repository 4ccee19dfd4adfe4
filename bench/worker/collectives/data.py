"""Inputs and upstream gradients that every rank knows of every other, and their memory layouts.

All values are small multiples of 1/8 or 1/4, which bfloat16 holds exactly: whatever is only moved
or added must come out exact, and a tolerance is needed for averages and products alone.
"""

from __future__ import annotations

import zlib
from typing import Any, List, Optional, Sequence

import numpy as np
import torch

from bench.worker.collectives.variant import Shape

LAYOUTS = ("contiguous", "transposed", "expanded", "sliced", "mixed")
"""Of upstream gradients. `expanded` is what `sum().backward()` hands to a collective's backward;
`mixed`: transposed on every second rank, contiguous on the others."""


def generator(case: str, ranks: Sequence[int]) -> np.random.Generator:
    """The same stream on every rank of the group `ranks` (global), another in every group."""
    return np.random.default_rng([zlib.crc32(case.encode()), *ranks])


def draw_inputs(
    random: np.random.Generator, shapes: Sequence[Sequence[Shape]]
) -> List[List[np.ndarray]]:
    """Inputs `[rank][tensor]`, float64; at no position do two ranks have the same value."""
    drawn: List[List[np.ndarray]] = [[] for _ in shapes]
    ranks = len(shapes)
    for tensor in range(len(shapes[0])):
        common = {ranks_shapes[tensor] for ranks_shapes in shapes}
        if len(common) > 1:  # uneven parts: nothing is reduced over ranks, so all may be equal
            for rank, own in enumerate(shapes):
                drawn[rank].append(random.integers(-8, 8, own[tensor]) / 4)
            continue
        shape = shapes[0][tensor]
        order = random.permuted(np.tile(np.arange(ranks), (*shape, 1)), axis=-1)
        level = random.integers(-2, 3, shape)
        for rank in range(ranks):
            drawn[rank].append((order[..., rank] + ranks * level + 1) / 8)
    return drawn


def draw_upstream(
    random: np.random.Generator,
    outputs: Sequence[Sequence[Shape]],
    layout: str,
    *,
    common: bool = False,
) -> List[List[np.ndarray]]:
    """Upstream gradients `[rank][tensor]` of outputs of these shapes, float64.

    An expanded tensor repeats one row, so its values are drawn so. `common`: every rank has those
    of the first, as where all ranks back-propagate the same loss.
    """
    drawn = [[_upstream(random, shape, layout) for shape in own] for own in outputs]
    return [drawn[0]] * len(drawn) if common else drawn


def _upstream(random: np.random.Generator, shape: Shape, layout: str) -> np.ndarray:
    if not shape:  # of a loss: one that is 0 would hide what reaches the inputs
        return np.asarray(random.integers(1, 8) / 4)
    values = random.integers(-8, 8, shape) / 4
    if layout == "expanded":
        return np.broadcast_to(values.take([0], axis=_expanded_dim(shape)), shape).copy()
    return values


def _expanded_dim(shape: Shape) -> int:
    """The first dimension that has anything to repeat along."""
    return next((dim for dim, length in enumerate(shape) if length > 1), 0)


def as_tensor(values: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A contiguous tensor."""
    return torch.tensor(values, dtype=dtype, device=device)


def laid_out(tensor: torch.Tensor, layout: str, rank: int) -> torch.Tensor:
    """The same values as `tensor` in another memory layout; `rank` decides where it is mixed."""
    if layout == "mixed":
        layout = "transposed" if rank % 2 else "contiguous"
    if layout == "transposed" and tensor.dim() > 1:
        return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "expanded":
        return tensor.narrow(_expanded_dim(tuple(tensor.shape)), 0, 1).expand_as(tensor)
    if layout == "sliced":
        wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), 99.0).to(tensor)
        wide[..., ::2] = tensor
        return wide[..., ::2]
    return tensor


def shapes_of(values: Sequence[Sequence[Optional[Any]]], like: Shape) -> List[List[Shape]]:
    """The shapes of expected outputs; an unspecified one has the shape `like`."""
    return [[like if one is None else one.shape for one in own] for own in values]
