"""What a loss makes of the parts that an all_gather returns: results and gradients, in numpy.

Each use hands another kind of gradient to the collective's backward: one that all ranks have in
common, the same tensor for every part, one without memory of its own, a slice of a larger one.
`bench.worker.collectives.calls.CONSUMED` does the same with torch.
"""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple

import numpy as np

Array = np.ndarray
Arrays = List[Array]

COPIES = 2
"""How often `expanded` repeats each part."""
WEIGHT = np.array([[1.0, -0.5], [2.0, 0.5], [-1.5, 1.0], [0.25, -2.0]])
"""`[columns of a part, 2]`, of `matmul`."""
ROW_WEIGHT = np.array([[1.0, -0.5], [2.0, 0.5], [-1.5, 1.0]])
"""`[rows of a part, 2]`, of `matmul_transposed`."""


class Use(NamedTuple):
    """The mathematics of one use."""

    outputs: Callable[[Arrays], Arrays]
    """Of the parts, one per rank."""
    gradients: Callable[[Arrays, Arrays], Arrays]
    """Of each part, given the parts and the gradients of the outputs."""


def _same_loss(parts: Arrays) -> Arrays:
    return [np.asarray(sum((part**2).sum() for part in parts) / 2)]


def _matmul(parts: Arrays) -> Arrays:
    return [np.concatenate(parts) @ WEIGHT]


def _matmul_back(parts: Arrays, u: Arrays) -> Arrays:
    return np.split(u[0] @ WEIGHT.T, len(parts))


def _cat_back(parts: Arrays, u: Arrays) -> Arrays:
    return np.split(u[0], len(parts), axis=1)


USES: Dict[str, Use] = {
    # half the sum of squares, which every rank back-propagates: u[0] is one number
    "same_loss": Use(_same_loss, lambda parts, u: [u[0] * part for part in parts]),
    "matmul": Use(_matmul, _matmul_back),
    "matmul_transposed": Use(
        lambda parts: [part.T @ ROW_WEIGHT for part in parts],
        lambda parts, u: [ROW_WEIGHT @ one.T for one in u],
    ),
    "sum": Use(
        lambda parts: [np.asarray(np.stack(parts).sum())],
        lambda parts, u: [np.full_like(part, u[0]) for part in parts],
    ),
    "sum_of_parts": Use(
        lambda parts: [np.stack(parts).sum(axis=0)], lambda parts, u: u * len(parts)
    ),
    "expanded": Use(
        lambda parts: [np.stack([part] * COPIES) for part in parts],
        lambda parts, u: [one.sum(axis=0) for one in u],
    ),
    "cat": Use(lambda parts: [np.concatenate(parts, axis=1)], _cat_back),
}
"""By name, as `Variant.use` has it."""
