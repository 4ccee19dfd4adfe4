"""Numbers that cannot be: what a published or recorded result contradicts by its own arithmetic.

Model FLOPs are the least that training must compute, so that nothing here depends on how it
was done: no recomputation, only the causal half of the scores, nothing lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, List, Optional, Sequence

from bench.theory.flops import matmul_parameters, model_flops_per_token, total_parameters

if TYPE_CHECKING:
    from bench.trial import ModelSpec

SLACK = 0.02
"""A result may exceed a limit by so much before it counts as impossible: rounded figures."""


@dataclass(frozen=True)
class Observation:
    """A result, as published or recorded."""

    label: str
    model: ModelSpec
    gpus: int
    seq_len: int
    tokens_per_step: int
    """Of all GPUs together."""
    step_s: Optional[float] = None
    peak_memory_bytes: Optional[float] = None
    """Of one GPU."""
    uncertainty_s: float = 0.0
    """By how much `step_s` may be off [s]: between two steps that differ by less, nothing is
    called impossible. Published figures have none."""

    @property
    def flops_per_step(self) -> float:
        """Model FLOPs of all GPUs together."""
        return self.tokens_per_step * model_flops_per_token(self.model, self.seq_len)

    @property
    def linear_flops_per_step(self) -> float:
        """The same without attention: a bound where attention may not span the sequence."""
        return self.tokens_per_step * 6.0 * matmul_parameters(self.model)


def step_seconds(tokens_per_step: int, tokens_per_s: float) -> float:
    """Seconds that a step takes when `tokens_per_s` count the tokens of all GPUs."""
    return tokens_per_step / tokens_per_s


def rate(one: Observation) -> Optional[float]:
    """Model FLOP/s of one GPU; None where no time is known."""
    return None if one.step_s is None else one.flops_per_step / one.step_s / one.gpus


def marginal_rate(
    shorter: Observation, longer: Observation, attention: bool = True
) -> Optional[float]:
    """FLOP/s of one GPU for what the longer step computes beyond the shorter one.

    Between two steps that differ in sequence length only, overheads drop out: the additional
    FLOPs over the additional time. Infinite where more was computed in no more time. None
    where a time is missing, or nothing more was computed. `attention=False` counts linear
    layers only: packed documents attend to less than the sequence.
    """
    if shorter.step_s is None or longer.step_s is None:
        return None
    if attention:
        flops = longer.flops_per_step - shorter.flops_per_step
    else:
        flops = longer.linear_flops_per_step - shorter.linear_flops_per_step
    if flops <= 0:
        return None
    seconds = longer.step_s - shorter.step_s
    return flops / seconds / longer.gpus if seconds > 0 else math.inf


def weight_bytes(one: Observation, element_bytes: int = 2) -> float:
    """The least that one GPU holds of the weights: a share of them, as under ZeRO 3."""
    return total_parameters(one.model) * element_bytes / one.gpus


def impossible(
    series: Sequence[Observation], peak_flops: float, memory_bytes: Optional[float] = None
) -> List[str]:
    """Why the results of one series cannot all be true, a sentence each; empty when they can.

    `series` differs in sequence length only; `peak_flops` is one GPU's [FLOP/s], and
    `memory_bytes` what it has.
    """
    found = []
    limit = peak_flops * (1 + SLACK)
    ordered = sorted(series, key=lambda one: one.seq_len)
    for one in ordered:
        reached = rate(one)
        if reached is not None and reached > limit:
            found.append(
                f"{one.label}: {_tera(reached)} per GPU are above the peak of {_tera(peak_flops)}"
            )
        found.extend(_memory_objections(one, memory_bytes))
    for shorter, longer in zip(ordered, ordered[1:]):
        marginal = marginal_rate(_off(shorter, -1), _off(longer, +1))
        if marginal is not None and marginal > limit:
            found.append(
                f"{shorter.label} to {longer.label}: the longer step computes more at "
                f"{_tera(marginal)} per GPU, above the peak of {_tera(peak_flops)}"
            )
    return found


def _off(one: Observation, sign: int) -> Observation:
    """`one` as much shorter or longer as it may be."""
    if one.step_s is None:
        return one
    return replace(one, step_s=one.step_s + sign * one.uncertainty_s)


def _memory_objections(one: Observation, memory_bytes: Optional[float]) -> List[str]:
    peak = one.peak_memory_bytes
    if peak is None:
        return []
    found = []
    if peak < weight_bytes(one) * (1 - SLACK):
        found.append(
            f"{one.label}: a peak of {peak / 1e9:.1f} GB is less than a GPU's share of the "
            f"weights, {weight_bytes(one) / 1e9:.1f} GB"
        )
    if memory_bytes is not None and peak > memory_bytes * (1 + SLACK):
        found.append(
            f"{one.label}: a peak of {peak / 1e9:.1f} GB is more than the GPU's "
            f"{memory_bytes / 1e9:.1f} GB"
        )
    return found


def _tera(flops: float) -> str:
    if math.isinf(flops):
        return "infinitely many FLOP/s"
    return f"{flops / 1e12:,.0f} TFLOP/s" if flops >= 1e13 else f"{flops / 1e9:,.1f} GFLOP/s"
