"""What distinguishes two cases of a collective, and the sizes of the tensors they exchange."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Dict, List, Tuple

Shape = Tuple[int, ...]

PART: Shape = (3, 4)
"""What one rank contributes to a plain collective."""
HEAD_DIM = 3
TOKENS = 2
"""Tokens of the sequence that each rank holds in the cases of sequence parallelism."""


@dataclass(frozen=True)
class Variant:
    """The arguments of a collective that change what it computes. Defaults go unnamed."""

    reduction: str = "sum"
    """sum, avg, max, min or product."""
    root: str = ""
    """`first` or `last` member of the group, where the collective has a source or destination."""
    root_by: str = "world"
    """How the root is named: by its rank in the `world` or in the `group`."""
    dim: int = 0
    """Along which the parts are concatenated or split."""
    split: str = "even"
    """`even` or `uneven`: parts (or heads) per rank."""
    tensors: int = 1
    """How many tensors a coalesced collective takes."""
    scatter: str = ""
    """Sequence all-to-all: `heads` (gathers the sequence) or `sequence` (gathers the heads)."""
    batch_dim: int = 0
    batch: int = 1
    use: str = ""
    """What the loss makes of the parts that an all_gather returns: one of `uses.USES`."""

    @property
    def label(self) -> str:
        """`reduction=max,root=last`: what differs from the defaults; empty where nothing does."""
        named = ((one.name, getattr(self, one.name), one.default) for one in fields(self))
        return ",".join(f"{name}={value}" for name, value, default in named if value != default)

    def root_of(self, size: int) -> int:
        """Index of the root within a group of `size` ranks."""
        return size - 1 if self.root == "last" else 0


def rows_sent(variant: Variant, size: int) -> List[List[int]]:
    """Rows that rank r sends to rank s in an all-to-all: `[r][s]`."""
    if variant.split == "even":
        return [[PART[0]] * size for _ in range(size)]
    return [[(r + s) % size + 1 for s in range(size)] for r in range(size)]


def heads_of(variant: Variant, size: int) -> List[int]:
    """Heads of each rank: two, or where they are uneven one less on the last rank."""
    return [2] * size if variant.split == "even" else [2] * (size - 1) + [1]


def sequence_dim(variant: Variant) -> int:
    """Where the sequence is in `[batch, seq, heads, dim]` or `[seq, batch, heads, dim]`."""
    return 1 - variant.batch_dim


def sequence_shape(variant: Variant, tokens: int, heads: int) -> Shape:
    """Of a tensor of sequence parallelism, with the batch where the variant has it."""
    leading = (variant.batch, tokens) if variant.batch_dim == 0 else (tokens, variant.batch)
    return (*leading, heads, HEAD_DIM)


def input_shapes(operation: str, variant: Variant, size: int) -> List[List[Shape]]:
    """The shapes of what every rank of the group hands in: `[rank][tensor]`."""
    lists_of_parts = ("scatter", "reduce_scatter", "all_to_all")
    if operation in lists_of_parts:
        return [[PART] * size for _ in range(size)]
    if operation == "reduce_scatter_single":
        stacked = _along(variant.dim, size)
        return [[stacked] * variant.tensors for _ in range(size)]
    if operation == "all_to_all_single":
        return [[(sum(rows), PART[1])] for rows in rows_sent(variant, size)]
    if operation == "dim_zero_all_to_all":
        return [[(size, *PART)] for _ in range(size)]
    if operation == "permute":
        return [[(PART[0] * PART[1],)] for _ in range(size)]
    if operation == "seq_all_to_all":
        return [[shape] for shape in _sequence_shapes(variant, size)]
    return [[PART] * variant.tensors for _ in range(size)]


def _along(dim: int, size: int) -> Shape:
    return tuple(length * size if at == dim else length for at, length in enumerate(PART))


def _sequence_shapes(variant: Variant, size: int) -> List[Shape]:
    heads = heads_of(variant, size)
    if variant.scatter == "heads":
        return [sequence_shape(variant, TOKENS, sum(heads))] * size
    return [sequence_shape(variant, TOKENS * size, own) for own in heads]


REDUCTIONS: Dict[str, str] = {
    "sum": "SUM",
    "avg": "AVG",
    "max": "MAX",
    "min": "MIN",
    "product": "PRODUCT",
}
"""Name of each reduction in `torch.distributed.ReduceOp`."""
