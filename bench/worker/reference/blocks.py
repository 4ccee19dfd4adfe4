"""Causal attention in float64, in blocks of queries and keys, by matrix products.

CUDA's fused kernels have no float64, and the unfused one keeps all scores, S² of them. Here the
scores of one block live at a time: the softmax is accumulated over blocks of keys, and backward
computes the scores again from the log-sum-exp that forward keeps. Key/value heads are not
repeated: the query heads that share one are rows of one product.
Sources: arXiv 2112.05682 (blocks), arXiv 2307.08691, section 3.1 (log-sum-exp and backward).

Inside, q is [batch, kv_heads, heads/kv_heads, seq, head_dim], k and v [batch, kv_heads, seq,
head_dim]; a block of q has its heads and its rows in one dimension.
"""

from __future__ import annotations

from typing import Any, Iterator, Tuple

import torch
from torch import Tensor

from bench.worker.model import CoreAttention


def blockwise(block: int) -> CoreAttention:
    """Attention whose scores are computed for `block` queries and keys at once."""

    def core(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attended: Tensor = _Blockwise.apply(q, k, v, block)
        return attended

    return core


def query_blocks(seq: int, block: int) -> Iterator[slice]:
    """The blocks of queries of a sequence, the last perhaps shorter."""
    for start in range(0, seq, block):
        yield slice(start, min(start + block, seq))


def key_blocks(queries: slice, block: int) -> Iterator[slice]:
    """The blocks of keys that the block `queries` sees; the last is on the diagonal."""
    return query_blocks(queries.stop, block)


class _Blockwise(torch.autograd.Function):
    """q, k and v as a `CoreAttention` takes them."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
        out = torch.empty_like(q)
        log_sum = q.new_empty(q.shape[:-1])
        for queries in query_blocks(q.shape[1], block):
            found, its_log_sum = _attend(q, k, v, queries, block)
            _grouped(out, k)[..., queries, :] = _split(found, k, queries)
            _grouped(log_sum[..., None], k)[..., queries, :] = _split(its_log_sum, k, queries)
        ctx.save_for_backward(q, k, v, out, log_sum)
        ctx.block = block
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        q, k, v, out, log_sum = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        keys, values, dkeys, dvalues = (t.transpose(1, 2) for t in (k, v, dk, dv))
        for queries in query_blocks(q.shape[1], ctx.block):
            rows = _rows(q, k, queries) * _scale(q)
            grad = _rows(upstream, k, queries)
            inner = (grad * _rows(out, k, queries)).sum(-1, keepdim=True)
            its_log_sum = _rows(log_sum[..., None], k, queries)
            drows = torch.zeros_like(rows)
            for part in key_blocks(queries, ctx.block):
                key, value = keys[:, :, part], values[:, :, part]
                p = _scores(rows, key, queries, part).sub_(its_log_sum).exp_()
                dvalues[:, :, part] += p.transpose(-1, -2) @ grad
                ds = (grad @ value.transpose(-1, -2)).sub_(inner).mul_(p)
                drows += ds @ key
                dkeys[:, :, part] += ds.transpose(-1, -2) @ rows
            _grouped(dq, k)[..., queries, :] = _split(drows.mul_(_scale(q)), k, queries)
        return dq, dk, dv, None


def _attend(q: Tensor, k: Tensor, v: Tensor, queries: slice, block: int) -> Tuple[Tensor, Tensor]:
    """Output and log-sum-exp of one block of queries, [batch, kv_heads, rows, head_dim or 1]."""
    rows = _rows(q, k, queries) * _scale(q)
    keys, values = k.transpose(1, 2), v.transpose(1, 2)
    most = rows.new_full((*rows.shape[:-1], 1), -torch.inf)
    total, found = torch.zeros_like(most), torch.zeros_like(rows)
    for part in key_blocks(queries, block):
        scores = _scores(rows, keys[:, :, part], queries, part)
        higher = torch.maximum(most, scores.amax(-1, keepdim=True))
        p = scores.sub_(higher).exp_()
        shrink = (most - higher).exp_()
        total = total * shrink + p.sum(-1, keepdim=True)
        found = found * shrink + p @ values[:, :, part]
        most = higher
    return found / total, most + total.log()


def _scores(rows: Tensor, keys: Tensor, queries: slice, part: slice) -> Tensor:
    """Scores of scaled queries and keys, -inf where a key comes after its query."""
    scores = rows @ keys.transpose(-1, -2)
    if part.stop > queries.start:
        at = torch.arange(queries.start, queries.stop, device=rows.device)
        later = torch.arange(part.start, part.stop, device=rows.device) > at[:, None]
        scores.view(*rows.shape[:2], -1, *later.shape).masked_fill_(later, -torch.inf)
    return scores


def _grouped(x: Tensor, k: Tensor) -> Tensor:
    """View of `x` [batch, seq, heads, …] as [batch, kv_heads, heads/kv_heads, seq, …]."""
    return x.unflatten(2, (k.shape[2], -1)).permute(0, 2, 3, 1, 4)


def _rows(x: Tensor, k: Tensor, queries: slice) -> Tensor:
    """The block `queries` of `x` as [batch, kv_heads, rows, …]; heads that share k are rows."""
    return _grouped(x, k)[..., queries, :].flatten(2, 3)


def _split(rows: Tensor, k: Tensor, queries: slice) -> Tensor:
    """The inverse of `_rows`: [batch, kv_heads, heads/kv_heads, queries, …]."""
    return rows.unflatten(2, (-1, queries.stop - queries.start))


def _scale(q: Tensor) -> float:
    return float(q.shape[-1]) ** -0.5
