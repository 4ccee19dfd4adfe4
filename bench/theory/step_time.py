"""Seconds of a step: what a rank must do, over what its cluster can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict

from bench.theory.cluster import Cluster, Efficiencies
from bench.theory.flops import (
    matmul_parameters,
    model_flops_per_step,
    recomputed_attention_flops_per_token,
    recomputed_matmul_parameters,
    total_parameters,
)
from bench.theory.memory import live_layer_bytes, logits_bytes, model_state_bytes
from bench.theory.traffic import state_bytes, ulysses_bytes_per_step

if TYPE_CHECKING:
    from bench.trial import ModelSpec

BACKWARD_SHARE = 2 / 3
"""Of a step's model FLOPs; recomputation only adds to it."""
CALLS_PER_PASS = 4
"""All-to-alls of one layer in one pass: q, k, v and the output."""


@dataclass(frozen=True)
class Work:
    """What one rank does in one step."""

    layers: int
    matmul_flops: float
    attention_flops: float
    memory_bytes: float
    """Read and written."""
    all_to_all_bytes: float
    """Sent to other ranks."""
    all_to_all_calls: int
    gradient_bytes: float
    """Sent to other ranks to reduce gradients and to gather weights."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step by resource, each as if it were alone."""

    matmul: float
    attention: float
    memory: float
    all_to_all: float
    gradient: float
    overhead: float
    hidden: float
    """Part of the gradient reduction that runs behind the backward pass."""

    @property
    def resources(self) -> Dict[str, float]:
        """Seconds by what limits them, the fixed overhead left out."""
        return {
            "compute": self.matmul + self.attention,
            "memory bandwidth": self.memory,
            "all-to-all": self.all_to_all,
            "gradient reduction": self.gradient,
        }

    @property
    def overlapped(self) -> float:
        """The least that it can be: every resource runs behind the slowest one [s]."""
        return self.overhead + max(self.resources.values())

    @property
    def serial(self) -> float:
        """The most: one resource after the other [s]."""
        return self.overhead + sum(self.resources.values())

    @property
    def predicted(self) -> float:
        """What is expected, between the two [s]."""
        return self.serial - self.hidden

    @property
    def limit(self) -> str:
        """The resource that takes the longest; `fixed overhead` where that takes longer still."""
        name, seconds = max(self.resources.items(), key=lambda one: one[1])
        return name if seconds >= self.overhead else "fixed overhead"


def gradient_bytes(
    parameters: int, zero: int, world: int, element_bytes: int, sp: int = 1
) -> float:
    """Bytes that one rank sends in a step for gradients and weights: `state_bytes`, both parts."""
    return state_bytes(parameters, zero, world, element_bytes, sp).total


def work_per_rank(
    model: ModelSpec,
    *,
    world: int,
    sp: int,
    zero: int,
    micro_batch: int,
    seq_len: int,
    element_bytes: int,
) -> Work:
    """What a rank does in a step; raises ValueError where heads or sequence do not divide.

    FLOPs include recomputation. Memory traffic: the model's state and the logits once each
    way; activations written in forward (twice with recomputation) and read in backward.
    """
    dp = world // sp
    tokens = dp * micro_batch * seq_len
    model_flops = model_flops_per_step(model, dp, micro_batch, seq_len)
    matmul = 6.0 * matmul_parameters(model) * tokens
    attention = model_flops - matmul
    matmul_again = 2 * recomputed_matmul_parameters(model) * tokens
    attention_again = recomputed_attention_flops_per_token(model, seq_len) * tokens
    state = model_state_bytes(total_parameters(model), zero, world, element_bytes).total
    live = live_layer_bytes(model, sp, micro_batch, seq_len, element_bytes)
    passes = 3 if model.activation_checkpointing else 2
    sent = ulysses_bytes_per_step(model, sp, micro_batch, seq_len, element_bytes)
    return Work(
        layers=model.layers,
        matmul_flops=(matmul + matmul_again) / world,
        attention_flops=(attention + attention_again) / world,
        memory_bytes=2 * state
        + passes * model.layers * live
        + 2 * logits_bytes(model, sp, micro_batch, seq_len),
        all_to_all_bytes=sent.total,
        all_to_all_calls=CALLS_PER_PASS * passes * model.layers if sp > 1 else 0,
        gradient_bytes=gradient_bytes(total_parameters(model), zero, world, element_bytes, sp),
    )


def step_time(
    work: Work, cluster: Cluster, world: int, sp: int, efficiencies: Efficiencies
) -> StepTime:
    """Seconds of `work` on each resource of `cluster`, at the rates that `efficiencies` allow.

    Ranks of a sequence-parallel group are consecutive, so that a group that fits into a node
    stays within it.
    """
    e = efficiencies
    flops = cluster.peak_flops
    matmul = work.matmul_flops / (flops * e.matmul)
    attention = work.attention_flops / (flops * e.attention)
    all_to_all = all_to_all_s(work.all_to_all_bytes, work.all_to_all_calls, sp, cluster)
    gradient = reduction_s(work.gradient_bytes, world, cluster) / e.gradient
    behind = e.overlap * BACKWARD_SHARE * (matmul + attention)
    return StepTime(
        matmul=matmul,
        attention=attention,
        memory=work.memory_bytes / (cluster.memory_bandwidth * e.memory),
        all_to_all=all_to_all / e.all_to_all,
        gradient=gradient,
        overhead=e.step_overhead_s + work.layers * e.layer_overhead_s,
        hidden=min(gradient, behind),
    )


def all_to_all_s(sent: float, calls: int, sp: int, cluster: Cluster) -> float:
    """Seconds of `calls` all-to-alls in which a rank sends `sent` bytes in all to others.

    Every peer gets the same share. What goes to peers in the node and what goes to others
    travel over different links at the same time: the slower one counts.
    """
    if sp == 1:
        return 0.0
    near = min(sp, cluster.gpus_per_node) - 1
    far = sp - 1 - near
    inside = sent * near / (sp - 1) / cluster.intra.bandwidth
    outside = sent * far / (sp - 1) / cluster.inter.bandwidth
    latency = cluster.inter.latency_s if far else cluster.intra.latency_s
    return max(inside, outside) + calls * latency


def reduction_s(sent: float, world: int, cluster: Cluster) -> float:
    """Seconds of reducing and gathering over all ranks, when a flat ring would send `sent`.

    Over several nodes it is done in two levels, as NCCL does: within the node, and each GPU's
    share of that between the nodes through a network card of its own. The levels are
    pipelined: the slower one counts. Latency is left out: these messages are large.
    """
    if world == 1:
        return 0.0
    whole = sent * world / (world - 1)
    local = min(world, cluster.gpus_per_node)
    nodes = -(-world // local)
    inside = whole * (local - 1) / local / cluster.intra.bandwidth
    outside = whole / local * (nodes - 1) / nodes / cluster.inter.bandwidth
    return max(inside, outside)
