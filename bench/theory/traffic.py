"""Bytes on the wire: what ranks must send each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict

if TYPE_CHECKING:
    from bench.trial import ModelSpec

_SENT: Dict[str, float] = {
    "all_reduce": 2.0,
    "all_gather": 0.0,
    "all_gather_into_tensor": 0.0,
    "reduce_scatter": 1.0,
    "reduce_scatter_tensor": 1.0,
    "reduce": 1.0,
    "broadcast": 1.0,
    "all_to_all": 1.0,
    "all_to_all_single": 1.0,
}
"""Multiples of (n-1)/n of what a rank hands in; 0: n-1 times it."""
KEPT_PARAMETERS = 10**9
"""ZeRO 3 keeps as many gathered parameters from forward to backward (DeepSpeed's default of
`stage3_max_live_parameters` and `stage3_max_reuse_distance`)."""
REDUCED_UNDER_SP = 4
"""Bytes of an element in which DeepSpeed reduces gradients over sequence-parallel ranks, whatever
their dtype (its default of `seq_parallel_communication_data_type`)."""


@dataclass(frozen=True)
class PassBytes:
    """Bytes that one rank sends in the passes of a step (or of one layer of it)."""

    forward: int
    recompute: int
    """Forward again, in backward, under activation checkpointing; else 0."""
    backward: int

    @property
    def total(self) -> int:
        """Bytes of all passes."""
        return self.forward + self.recompute + self.backward

    def times(self, count: int) -> PassBytes:
        """The same for `count` layers."""
        return PassBytes(self.forward * count, self.recompute * count, self.backward * count)


def ulysses_bytes_per_layer(
    model: ModelSpec, sp: int, micro_batch: int, seq_len: int, element_bytes: int
) -> PassBytes:
    """Bytes that one rank sends to others in a layer's all-to-alls.

    Forward: e b (S/P) d (2H + 2K') (P-1)/P for q, k, v and the output, where K' = max(K, P)
    since kv heads are replicated until every rank has one. Backward is the same, and under
    activation checkpointing forward happens twice. Source: arXiv 2309.14509, section 3.

    Raises ValueError where heads or sequence do not divide by sp.
    """
    kv_heads = max(model.kv_heads, sp)
    for name, value in (("seq_len", seq_len), ("heads", model.heads), ("kv_heads", kv_heads)):
        if value % sp:
            raise ValueError(f"{name}={value} is not divisible by sp={sp}")
    heads_per_peer = 2 * (model.heads + kv_heads) // sp
    tokens = micro_batch * seq_len // sp
    sent = element_bytes * tokens * model.head_dim * heads_per_peer * (sp - 1)
    return PassBytes(sent, sent if model.activation_checkpointing else 0, sent)


def ulysses_bytes_per_step(
    model: ModelSpec, sp: int, micro_batch: int, seq_len: int, element_bytes: int
) -> PassBytes:
    """Bytes that one rank sends to others in the all-to-alls of all layers of a step."""
    per_layer = ulysses_bytes_per_layer(model, sp, micro_batch, seq_len, element_bytes)
    return per_layer.times(model.layers)


def ring_bytes_per_layer(
    model: ModelSpec, sp: int, micro_batch: int, seq_len: int, element_bytes: int
) -> PassBytes:
    """Bytes that one rank sends in a layer of ring attention.

    Forward: e b 2K d S (P-1)/P, every rank passing on k and v P-1 times; backward twice that,
    since their gradients travel along. Source: arXiv 2310.01889, section 3.
    """
    if seq_len % sp:
        raise ValueError(f"seq_len={seq_len} is not divisible by sp={sp}")
    block = element_bytes * micro_batch * 2 * model.kv_heads * model.head_dim * (seq_len // sp)
    sent = block * (sp - 1)
    return PassBytes(sent, sent if model.activation_checkpointing else 0, 2 * sent)


@dataclass(frozen=True)
class StateBytes:
    """Bytes that one rank sends in a step for the model's state."""

    reduced: float
    """To reduce gradients."""
    gathered: float
    """To gather weights."""

    @property
    def total(self) -> float:
        """Bytes of both."""
        return self.reduced + self.gathered


def state_bytes(
    parameters: int,
    zero: int,
    world: int,
    element_bytes: int,
    sp: int = 1,
    first_step: bool = False,
    persistent: int = 0,
) -> StateBytes:
    """Bytes that one rank sends in a step for gradients and weights, as DeepSpeed does it.

    With N parameters of e bytes, whose gradients travel with r bytes, and W ranks, in multiples of
    (W-1)/W: ZeRO 0 all-reduces the gradients, 2 r N. ZeRO 1 and 2 all-reduce them, too, and each
    rank keeps its part (`allreduce_and_scatter`), then they gather the weights: 2 r N + e N. ZeRO 3
    reduce-scatters the gradients, r N, and gathers the weights for forward, e N, and for
    backward what exceeds `KEPT_PARAMETERS`. In its first step, when it does not know yet what it
    will use again, it gathers all weights for backward, too, and after it the `persistent` ones,
    which it never frees. Ranks of a sequence-parallel group take part like all others.

    arXiv 1910.02054, section 7, has 2 e N for ZeRO 1 and 2: it reduce-scatters. What is here is
    the path of DeepSpeed's `runtime/engine.py`, `zero/stage_1_and_2.py` and `zero/stage3.py` under
    default options, compared with counted bytes by `tests/worker/test_traffic.py`.
    """
    share = (world - 1) / world
    reduced = (REDUCED_UNDER_SP if sp > 1 else element_bytes) * parameters * share
    weights = element_bytes * parameters * share
    if zero == 0:
        return StateBytes(2 * reduced, 0.0)
    if zero < 3:
        return StateBytes(2 * reduced, weights)
    if first_step:
        return StateBytes(reduced, 2 * weights + element_bytes * persistent * share)
    return StateBytes(
        reduced, weights + element_bytes * max(0, parameters - KEPT_PARAMETERS) * share
    )


def sent_bytes(collective: str, handed_in: float, ranks: int) -> float:
    """Bytes that one of `ranks` ranks sends in a collective to which each hands in `handed_in`.

    Of the algorithm that sends least, a ring; raises KeyError for a collective that is not known.
    Source: nccl-tests, doc/PERFORMANCE.md.
    """
    multiple = _SENT[collective]
    return handed_in * (multiple * (ranks - 1) / ranks if multiple else ranks - 1)


def all_to_all_bus_bandwidth(size_bytes: int, seconds: float, ranks: int) -> float:
    """Bus bandwidth of an all-to-all [bytes/s]: bytes/time (n-1)/n.

    `size_bytes` is what each rank hands in, its own part included.
    Source: nccl-tests, doc/PERFORMANCE.md.
    """
    return size_bytes / seconds * (ranks - 1) / ranks
