"""The analytic answers: by hand on two ranks, and as derivatives taken numerically."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.worker.collectives.answers import OPERATIONS
from bench.worker.collectives.uses import USES
from bench.worker.collectives.variant import Variant, input_shapes

FIRST, LAST = Variant(root="first"), Variant(root="last")


def arrays(nested: Any) -> list[list[np.ndarray]]:
    return [[np.array(one, dtype=float) for one in rank] for rank in nested]


def plain(nested: Any) -> list[list[Any]]:
    return [[None if one is None else one.tolist() for one in rank] for rank in nested]


# operation, variant, x, y, u, g: [rank][tensor]
BY_HAND: list[Any] = [
    ("all_gather", Variant(),
     [[[1, 2]], [[3, 4]]], [[[1, 2], [3, 4]], [[1, 2], [3, 4]]],
     [[[1, 0], [2, 0]], [[10, 0], [20, 1]]], [[[11, 0]], [[22, 1]]]),
    # of a use, y and u are its result and that one's gradient; the same loss has one u on all ranks
    ("all_gather", Variant(use="same_loss"),
     [[[1, 2]], [[3, 4]]], [[15], [15]],
     [[2], [2]], [[[4, 8]], [[12, 16]]]),
    ("all_gather", Variant(use="sum"),
     [[[1, 2]], [[3, 4]]], [[10], [10]],
     [[2], [3]], [[[5, 5]], [[5, 5]]]),
    ("all_gather", Variant(use="sum_of_parts"),
     [[[1, 2]], [[3, 4]]], [[[4, 6]], [[4, 6]]],
     [[[1, 2]], [[10, 20]]], [[[11, 22]], [[11, 22]]]),
    ("all_gather", Variant(use="expanded"),
     [[[1]], [[3]]], [[[[1], [1]], [[3], [3]]], [[[1], [1]], [[3], [3]]]],
     [[[[1], [2]], [[3], [4]]], [[[10], [20]], [[30], [40]]]], [[[33]], [[77]]]),
    ("all_gather", Variant(use="cat"),
     [[[[1]]], [[[3]]]], [[[[1, 3]]], [[[1, 3]]]],
     [[[[1, 2]]], [[[10, 20]]]], [[[[11]]], [[[22]]]]),
    # a row of four times [[1, -.5], [2, .5], [-1.5, 1], [.25, -2]]
    ("all_gather", Variant(use="matmul"),
     [[[[1, 0, 0, 4]]], [[[0, 1, 2, 0]]]], [[[[2, -8.5], [-1, 2.5]]]] * 2,
     [[[[1, 0], [0, 2]]], [[[0, 2], [1, 0]]]],
     [[[[0, 3, 0.5, -3.75]]], [[[0, 3, 0.5, -3.75]]]]),
    # a column of three, transposed, times [[1, -.5], [2, .5], [-1.5, 1]]
    ("all_gather", Variant(use="matmul_transposed"),
     [[[[1], [0], [2]]], [[[0], [4], [0]]]], [[[[-2, 1.5]], [[8, 2]]]] * 2,
     [[[[1, 0]], [[0, 2]]], [[[0, 2]], [[1, 0]]]],
     [[[[0], [3], [0.5]]], [[[0], [3], [0.5]]]]),
    ("all_gather_single", Variant(),
     [[[1, 2]], [[3, 4]]], [[[1, 2, 3, 4]], [[1, 2, 3, 4]]],
     [[[1, 2, 3, 4]], [[10, 20, 30, 40]]], [[[11, 22]], [[33, 44]]]),
    ("all_gather_single", Variant(dim=1),
     [[[[1], [2]]], [[[3], [4]]]], [[[[1, 3], [2, 4]]], [[[1, 3], [2, 4]]]],
     [[[[1, 2], [3, 4]]], [[[10, 20], [30, 40]]]], [[[[11], [33]]], [[[22], [44]]]]),
    ("all_reduce", Variant(),
     [[[1, 2]], [[3, 4]]], [[[4, 6]], [[4, 6]]],
     [[[1, 2]], [[10, 20]]], [[[11, 22]], [[11, 22]]]),
    ("all_reduce", Variant(reduction="avg"),
     [[[1, 2]], [[3, 4]]], [[[2, 3]], [[2, 3]]],
     [[[1, 2]], [[10, 20]]], [[[5.5, 11]], [[5.5, 11]]]),
    ("all_reduce", Variant(reduction="max"),
     [[[1, 5]], [[3, 4]]], [[[3, 5]], [[3, 5]]],
     [[[1, 2]], [[10, 20]]], [[[0, 22]], [[11, 0]]]),
    ("all_reduce", Variant(reduction="min"),
     [[[1, 5]], [[3, 4]]], [[[1, 4]], [[1, 4]]],
     [[[1, 2]], [[10, 20]]], [[[11, 0]], [[0, 22]]]),
    ("all_reduce", Variant(reduction="product"),
     [[[1, 5]], [[3, 4]]], [[[3, 20]], [[3, 20]]],
     [[[1, 2]], [[10, 20]]], [[[33, 88]], [[11, 110]]]),
    ("all_reduce", Variant(tensors=2),
     [[[1], [2]], [[3], [4]]], [[[4], [6]], [[4], [6]]],
     [[[1], [2]], [[10], [20]]], [[[11], [22]], [[11], [22]]]),
    ("broadcast", FIRST,
     [[[1, 2]], [[3, 4]]], [[[1, 2]], [[1, 2]]],
     [[[1, 2]], [[10, 20]]], [[[11, 22]], [[0, 0]]]),
    ("broadcast", LAST,
     [[[1, 2]], [[3, 4]]], [[[3, 4]], [[3, 4]]],
     [[[1, 2]], [[10, 20]]], [[[0, 0]], [[11, 22]]]),
    ("gather", LAST,
     [[[1]], [[3]]], [[None, None], [[1], [3]]],
     [[[5], [6]], [[7], [8]]], [[[7]], [[8]]]),
    ("scatter", FIRST,
     [[[1], [2]], [[3], [4]]], [[[1]], [[2]]],
     [[[5]], [[6]]], [[[5], [6]], [[0], [0]]]),
    ("reduce", LAST,
     [[[1]], [[3]]], [[None], [[4]]],
     [[[5]], [[6]]], [[[6]], [[6]]]),
    ("reduce", Variant(reduction="avg", root="first"),
     [[[1]], [[3]]], [[[2]], [None]],
     [[[5]], [[6]]], [[[2.5]], [[2.5]]]),
    ("reduce_scatter", Variant(),
     [[[1], [2]], [[3], [4]]], [[[4]], [[6]]],
     [[[5]], [[7]]], [[[5], [7]], [[5], [7]]]),
    ("reduce_scatter", Variant(reduction="max"),
     [[[1], [9]], [[3], [4]]], [[[3]], [[9]]],
     [[[5]], [[7]]], [[[0], [7]], [[5], [0]]]),
    ("reduce_scatter_single", Variant(reduction="avg"),
     [[[1, 2]], [[3, 4]]], [[[2]], [[3]]],
     [[[5]], [[7]]], [[[2.5, 3.5]], [[2.5, 3.5]]]),
    ("all_to_all", Variant(),
     [[[1], [2]], [[3], [4]]], [[[1], [3]], [[2], [4]]],
     [[[5], [6]], [[7], [8]]], [[[5], [7]], [[6], [8]]]),
    # rank 0 sends 1 row to rank 0 and 2 to rank 1; rank 1 sends 2 and 1
    ("all_to_all_single", Variant(split="uneven"),
     [[[1, 2, 3]], [[4, 5, 6]]], [[[1, 4, 5]], [[2, 3, 6]]],
     [[[10, 20, 30]], [[40, 50, 60]]], [[[10, 40, 50]], [[20, 30, 60]]]),
    ("dim_zero_all_to_all", Variant(),
     [[[1, 2]], [[3, 4]]], [[[1, 3]], [[2, 4]]],
     [[[5, 6]], [[7, 8]]], [[[5, 7]], [[6, 8]]]),
    ("permute", Variant(),
     [[[1]], [[2]]], [[[2]], [[1]]],
     [[[5]], [[6]]], [[[6]], [[5]]]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "variant", "x", "y", "u", "g"),
    BY_HAND,
    ids=[f"{one[0]}-{one[1].label}" for one in BY_HAND],
)
def test_by_hand(operation: str, variant: Variant, x: Any, y: Any, u: Any, g: Any) -> None:
    outputs, gradients = OPERATIONS[operation]
    assert plain(outputs(arrays(x), variant)) == y
    assert plain(gradients(arrays(x), arrays(u), variant)) == g


def test_sequence_to_heads_by_hand() -> None:
    # one sequence of 2 tokens with 3 heads of size 1; token 0 on rank 0; heads 0, 1 go to rank 0
    variant = Variant(scatter="heads", split="uneven")
    outputs, gradients = OPERATIONS["seq_all_to_all"]
    x = arrays([[[[[[1], [2], [3]]]]], [[[[[4], [5], [6]]]]]])
    x = [[one.reshape(1, 1, 3, 1) for one in rank] for rank in x]
    assert [rank[0].tolist() for rank in outputs(x, variant)] == [
        [[[[1], [2]], [[4], [5]]]],
        [[[[3]], [[6]]]],
    ]
    u = arrays([[[[[[10], [20]], [[40], [50]]]]], [[[[[30]], [[60]]]]]])
    assert [rank[0].ravel().tolist() for rank in gradients(x, u_shaped(u), variant)] == [
        [10, 20, 30],
        [40, 50, 60],
    ]


def u_shaped(u: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    return [[u[0][0].reshape(1, 2, 2, 1)], [u[1][0].reshape(1, 2, 1, 1)]]


VARIANTS = {
    "all_gather": [Variant(), *(Variant(use=use) for use in USES)],
    "all_gather_single": [Variant(), Variant(dim=1), Variant(tensors=2)],
    "all_reduce": [Variant(reduction=op) for op in ("sum", "avg", "max", "min", "product")],
    "broadcast": [FIRST, LAST],
    "gather": [FIRST, LAST],
    "scatter": [FIRST, LAST],
    "reduce": [FIRST, LAST, *(Variant(reduction=op, root="last") for op in ("avg", "max"))],
    "reduce_scatter": [Variant(reduction=op) for op in ("sum", "avg", "max", "product")],
    "reduce_scatter_single": [Variant(), Variant(dim=1), Variant(reduction="avg", tensors=2)],
    "all_to_all": [Variant()],
    "all_to_all_single": [Variant(), Variant(split="uneven")],
    "dim_zero_all_to_all": [Variant()],
    "permute": [Variant()],
    "seq_all_to_all": [
        Variant(scatter=scatter, split=split, batch_dim=dim, batch=2)
        for scatter in ("heads", "sequence")
        for split in ("even", "uneven")
        for dim in (0, 1)
    ],
}


def test_every_operation_is_derived() -> None:
    assert VARIANTS.keys() == OPERATIONS.keys()


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(
    ("operation", "variant"),
    [(name, variant) for name, variants in VARIANTS.items() for variant in variants],
    ids=lambda one: one if isinstance(one, str) else one.label,
)
def test_the_gradient_is_the_loss_derivative(operation: str, variant: Variant, size: int) -> None:
    random = np.random.default_rng(0)
    outputs, gradients = OPERATIONS[operation]
    shapes = input_shapes(operation, variant, size)
    x = [[random.normal(size=shape) for shape in own] for own in shapes]
    y = outputs(x, variant)
    u = [[None if one is None else random.normal(size=one.shape) for one in own] for own in y]

    def loss(rank: int, tensor: int, shift: np.ndarray) -> float:
        moved = [list(own) for own in x]
        moved[rank][tensor] = moved[rank][tensor] + shift
        return sum(
            float((one * weight).sum())
            for own, weights in zip(outputs(moved, variant), u, strict=True)
            for one, weight in zip(own, weights, strict=True)
            if one is not None
        )

    analytic = gradients(x, u, variant)
    for rank, own in enumerate(shapes):
        for tensor, shape in enumerate(own):
            direction = random.normal(size=shape) * 1e-6
            change = loss(rank, tensor, direction) - loss(rank, tensor, -direction)
            expected = 2 * float((analytic[rank][tensor] * direction).sum())
            assert change == pytest.approx(expected, rel=1e-4, abs=1e-12)
