"""What each collective must give, in float64 and without any communication.

`x[r]`, `y[r]` and `u[r]` are the tensors that rank r of the group (n ranks) hands in, gets, and
gets back from the loss as the gradient of its outputs. The loss is the sum over all ranks of
<u[r], y[r]>: every rank back-propagates its own part and autograd's collectives carry the rest.
So the gradient g[s] of an input is the sum over ranks r of dy[r]/dx[s] applied to u[r]:

    all_gather          y[r] = (x[0], …, x[n-1])       g[s] = sum over r of u[r][s]
    all_reduce          y[r] = op(x[0], …, x[n-1])     g[s] = op's derivative at x[s] times sum of u
    broadcast           y[r] = x[root]                 g[root] = sum of u, zero elsewhere
    gather              y[root] = (x[0], …, x[n-1])    g[s] = u[root][s]
    scatter             y[r] = x[root][r]              g[root] = (u[0], …, u[n-1]), zero elsewhere
    reduce              y[root] = op(x[0], …)          g[s] = op's derivative at x[s] times u[root]
    reduce_scatter      y[r] = op(x[0][r], …)          g[s][r] = op's derivative times u[r]
    all_to_all          y[r] = (x[0][r], …, x[n-1][r]) g[s] = (u[0][s], …, u[n-1][s])

Of a loss that all ranks hold in common (each back-propagates the same scalar) this is the sum over
ranks, n times the gradient of that scalar: the convention of `torch.distributed.nn`, which no
collective may depart from on its own. An output that the collective leaves unspecified (`gather`
and `reduce` away from the root) is None and its upstream gradient does not count.

Where the variant has a use (`uses.USES`), y is what that use makes of the parts, and u is the
gradient of the use's result.
"""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from bench.worker.collectives.uses import USES
from bench.worker.collectives.variant import Variant, heads_of, rows_sent, sequence_dim

Array = np.ndarray
Given = Sequence[Sequence[Array]]
"""Tensors of every rank of the group: `[rank][tensor]`."""
Expected = Sequence[Sequence[Optional[Array]]]
"""The same; None: not specified."""


class Operation(NamedTuple):
    """The mathematics of one kind of collective."""

    outputs: Callable[[Given, Variant], Expected]
    gradients: Callable[[Given, Given, Variant], Expected]
    """Of inputs and upstream gradients; where an output is unspecified, so may its upstream be."""


def reduced(values: Sequence[Array], reduction: str) -> Array:
    """The elementwise reduction of one array per rank."""
    method = {"sum": "sum", "avg": "mean", "max": "max", "min": "min", "product": "prod"}
    result: Array = getattr(np.stack(values), method[reduction])(axis=0)
    return result


def pulled_back(values: Sequence[Array], upstream: Array, reduction: str) -> List[Array]:
    """The gradient of each of `values`, when that of their reduction is `upstream`.

    A maximum or minimum must be attained by one rank only.
    """
    if reduction == "avg":
        return [upstream / len(values)] * len(values)
    if reduction in ("max", "min"):
        extremum = reduced(values, reduction)
        return [np.where(value == extremum, upstream, 0.0) for value in values]
    if reduction == "product":
        others = [[v for at, v in enumerate(values) if at != own] for own in range(len(values))]
        return [upstream * reduced(rest, "product") for rest in others]
    return [upstream] * len(values)


def _transposed(values: Given) -> List[List[Array]]:
    """`[rank][tensor]` as `[tensor][rank]`, and the other way round."""
    return [list(column) for column in zip(*values)]


def _all_gather(x: Given, v: Variant) -> Expected:
    parts = [own[0] for own in x]
    return [USES[v.use].outputs(parts) if v.use else parts for _ in x]


def _all_gather_back(x: Given, u: Given, v: Variant) -> Expected:
    if v.use:
        parts = [own[0] for own in x]
        u = [USES[v.use].gradients(parts, list(own)) for own in u]
    return [[reduced(parts, "sum")] for parts in _transposed(u)]


def _all_gather_single(x: Given, v: Variant) -> Expected:
    gathered = [np.concatenate(parts, axis=v.dim) for parts in _transposed(x)]
    return [list(gathered) for _ in x]


def _all_gather_single_back(x: Given, u: Given, v: Variant) -> Expected:
    totals = [reduced(parts, "sum") for parts in _transposed(u)]
    return _transposed([np.split(total, len(x), axis=v.dim) for total in totals])


def _all_reduce(x: Given, v: Variant) -> Expected:
    totals = [reduced(values, v.reduction) for values in _transposed(x)]
    return [list(totals) for _ in x]


def _all_reduce_back(x: Given, u: Given, v: Variant) -> Expected:
    return _transposed(
        [
            pulled_back(values, reduced(upstream, "sum"), v.reduction)
            for values, upstream in zip(_transposed(x), _transposed(u))
        ]
    )


def _broadcast(x: Given, v: Variant) -> Expected:
    return [list(x[v.root_of(len(x))]) for _ in x]


def _broadcast_back(x: Given, u: Given, v: Variant) -> Expected:
    root, total = v.root_of(len(x)), reduced([one[0] for one in u], "sum")
    return [[total if rank == root else np.zeros_like(total)] for rank in range(len(x))]


def _gather(x: Given, v: Variant) -> Expected:
    root = v.root_of(len(x))
    return [[one[0] if rank == root else None for one in x] for rank in range(len(x))]


def _gather_back(x: Given, u: Given, v: Variant) -> Expected:
    return [[part] for part in u[v.root_of(len(x))]]


def _scatter(x: Given, v: Variant) -> Expected:
    return [[part] for part in x[v.root_of(len(x))]]


def _scatter_back(x: Given, u: Given, v: Variant) -> Expected:
    root = v.root_of(len(x))
    return [
        [one[0] if rank == root else np.zeros_like(one[0]) for one in u] for rank in range(len(x))
    ]


def _reduce(x: Given, v: Variant) -> Expected:
    root, total = v.root_of(len(x)), reduced([one[0] for one in x], v.reduction)
    return [[total if rank == root else None] for rank in range(len(x))]


def _reduce_back(x: Given, u: Given, v: Variant) -> Expected:
    values = [one[0] for one in x]
    return [[g] for g in pulled_back(values, u[v.root_of(len(x))][0], v.reduction)]


def _reduce_scatter(x: Given, v: Variant) -> Expected:
    return [[reduced(parts, v.reduction)] for parts in _transposed(x)]


def _reduce_scatter_back(x: Given, u: Given, v: Variant) -> Expected:
    columns = zip(_transposed(x), u)
    return _transposed([pulled_back(parts, own[0], v.reduction) for parts, own in columns])


def _reduce_scatter_single(x: Given, v: Variant) -> Expected:
    totals = [reduced(values, v.reduction) for values in _transposed(x)]
    return _transposed([np.split(total, len(x), axis=v.dim) for total in totals])


def _reduce_scatter_single_back(x: Given, u: Given, v: Variant) -> Expected:
    upstream = [np.concatenate(parts, axis=v.dim) for parts in _transposed(u)]
    columns = zip(_transposed(x), upstream)
    return _transposed([pulled_back(values, own, v.reduction) for values, own in columns])


def _all_to_all(x: Given, v: Variant) -> Expected:
    return _transposed(x)


def _all_to_all_back(x: Given, u: Given, v: Variant) -> Expected:
    return _transposed(u)


def _exchanged(values: Given, rows: List[List[int]]) -> Expected:
    """All-to-all of the first `rows[r][0]` rows, then `rows[r][1]`, … of each rank r."""
    parts = [np.split(one[0], np.cumsum(sent)[:-1]) for one, sent in zip(values, rows)]
    return [[np.concatenate(received)] for received in _transposed(parts)]


def _all_to_all_single(x: Given, v: Variant) -> Expected:
    return _exchanged(x, rows_sent(v, len(x)))


def _all_to_all_single_back(x: Given, u: Given, v: Variant) -> Expected:
    return _exchanged(u, _transposed(rows_sent(v, len(x))))  # type: ignore[arg-type]


def _dim_zero(x: Given, v: Variant) -> Expected:
    return [[np.stack([one[0][rank] for one in x])] for rank in range(len(x))]


def _dim_zero_back(x: Given, u: Given, v: Variant) -> Expected:
    return _dim_zero(u, v)


def _permute(x: Given, v: Variant) -> Expected:
    return [list(x[rank - 1]) for rank in range(len(x))]  # each rank sends to the next


def _permute_back(x: Given, u: Given, v: Variant) -> Expected:
    return [list(u[(rank + 1) % len(x)]) for rank in range(len(x))]


_HEADS = 2  # dimension of [batch, seq, heads, dim] and of [seq, batch, heads, dim]


def _heads_scattered(values: Given, v: Variant) -> Expected:
    """From shards of the sequence to shards of the heads."""
    whole = np.concatenate([one[0] for one in values], axis=sequence_dim(v))
    ends = np.cumsum(heads_of(v, len(values)))[:-1]
    return [[part] for part in np.split(whole, ends, axis=_HEADS)]


def _sequence_scattered(values: Given, v: Variant) -> Expected:
    """From shards of the heads to shards of the sequence."""
    whole = np.concatenate([one[0] for one in values], axis=_HEADS)
    return [[part] for part in np.split(whole, len(values), axis=sequence_dim(v))]


def _seq_all_to_all(x: Given, v: Variant) -> Expected:
    return _heads_scattered(x, v) if v.scatter == "heads" else _sequence_scattered(x, v)


def _seq_all_to_all_back(x: Given, u: Given, v: Variant) -> Expected:
    return _sequence_scattered(u, v) if v.scatter == "heads" else _heads_scattered(u, v)


OPERATIONS: Dict[str, Operation] = {
    "all_gather": Operation(_all_gather, _all_gather_back),
    "all_gather_single": Operation(_all_gather_single, _all_gather_single_back),
    "all_reduce": Operation(_all_reduce, _all_reduce_back),
    "broadcast": Operation(_broadcast, _broadcast_back),
    "gather": Operation(_gather, _gather_back),
    "scatter": Operation(_scatter, _scatter_back),
    "reduce": Operation(_reduce, _reduce_back),
    "reduce_scatter": Operation(_reduce_scatter, _reduce_scatter_back),
    "reduce_scatter_single": Operation(_reduce_scatter_single, _reduce_scatter_single_back),
    "all_to_all": Operation(_all_to_all, _all_to_all_back),
    "all_to_all_single": Operation(_all_to_all_single, _all_to_all_single_back),
    "dim_zero_all_to_all": Operation(_dim_zero, _dim_zero_back),
    "permute": Operation(_permute, _permute_back),
    "seq_all_to_all": Operation(_seq_all_to_all, _seq_all_to_all_back),
}
"""By name; `bench.worker.collectives.catalogue` says which function does which."""
