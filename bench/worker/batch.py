"""The data of a step: the same tokens, labels and positions on every version and split.

All numbers come from the raw output of the Philox counter generator, whose stream NumPy
guarantees; its distribution methods carry no such promise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.trial import Configuration

IGNORED = -100
"""Label that the loss leaves out, as in `torch.nn.functional.cross_entropy`."""


class Batch(NamedTuple):
    """Integer arrays of one shape: [replicas, batch, seq] whole, [batch, seq/sp] as a shard."""

    tokens: np.ndarray
    labels: np.ndarray
    """The token that follows, or `IGNORED`."""
    positions: np.ndarray
    """Global position, which a shard must not restart."""


def global_batch(configuration: Configuration) -> Batch:
    """The whole batch of a step, [replicas, micro_batch, seq_len], one row of data per replica.

    Labels are shifted here, before anything is sharded, so that the last position of a
    shard is labelled with the first token of the next one.
    """
    c = configuration
    shape = (c.dp, c.micro_batch, c.seq_len + 1)
    raw = np.random.Philox(key=[c.seed, 0]).random_raw(int(np.prod(shape))).reshape(shape)
    stream = (raw % np.uint64(c.model.vocab)).astype(np.int64)
    labels = np.where(_valid(c), stream[..., 1:], IGNORED)
    positions = np.broadcast_to(np.arange(c.seq_len), labels.shape)
    return Batch(stream[..., :-1], labels, positions)


def shard(batch: Batch, replica: int, sp_rank: int, sp: int) -> Batch:
    """The part of replica `replica` that rank `sp_rank` of `sp` computes, [batch, seq/sp]."""
    length = batch.tokens.shape[-1] // sp
    part = slice(sp_rank * length, (sp_rank + 1) * length)
    return Batch(*(array[replica, :, part].copy() for array in batch))


def _valid(c: Configuration) -> np.ndarray:
    """Which labels count, bool [replicas, micro_batch, seq_len]."""
    shape = (c.dp, c.micro_batch, c.seq_len)
    position = np.broadcast_to(np.arange(c.seq_len), shape)
    if c.mask == "none":
        return np.ones(shape, dtype=bool)
    if c.mask == "prompt":  # the first quarter is a prompt that is not learnt
        return position >= c.seq_len // 4
    if c.mask == "empty_shard":  # the last shard has nothing to learn
        return position < c.seq_len - c.seq_len // c.sp
    # ragged: the share of valid labels falls along the sequence from 1 to 0.2, drawn at random,
    # so that every shard and every replica has another number of them
    raw = np.random.Philox(key=[c.seed, 1]).random_raw(int(np.prod(shape))).reshape(shape)
    uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform < 1.0 - 0.8 * position / c.seq_len
