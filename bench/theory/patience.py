"""How long a healthy trial may be silent: what its longest phase can take on slow hardware.

On GPU a rank reports when it enters a phase, not while the device works, and waits for the device
only at the end of a step: so the longest phase is the whole step. On CPU a rank that computes
counts as alive, so that only what it waits for matters: what travels between ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.theory.step_time import Work, work_per_rank

if TYPE_CHECKING:
    from bench.trial import Configuration

LEAST_S = 60.0
"""Seconds of silence that are always allowed: what a step costs besides its work, such as making
communicators and choosing kernels the first time."""
MULTIPLE = 10
"""How much longer than theory says a phase may take. A hang that is found late costs minutes; a
healthy trial that is ended costs its measurement."""

GPU_FLOPS = {"float32": 10e12, "bfloat16": 50e12}
"""FLOP/s that an old data-center GPU reaches: of a V100's 15.7e12 in float32 two thirds, of an
A100's 312e12 in bfloat16 a sixth (their data sheets)."""
GPU_MEMORY_BANDWIDTH = 500e9
"""bytes/s: half of a V100's 900e9, less than a third of an A100's 1555e9 (their data sheets)."""
GPU_LINK = 5e9
"""bytes/s from GPU to GPU without NVLink: half of PCIe 3 x16 as it is reached."""
SHARED_GPU_LINK = 1e9
"""bytes/s between ranks on one GPU, which talk through sockets on the loopback interface."""
CPU_LINK = 1e9
"""bytes/s between ranks on CPU through the loopback interface, as gloo reaches it on one core."""

_ELEMENT_BYTES = {"float32": 4, "bfloat16": 2}


def hang_s(configuration: Configuration) -> float:
    """Seconds without progress after which a trial has hung, at least `LEAST_S`."""
    try:
        return max(LEAST_S, MULTIPLE * longest_phase_s(configuration))
    except ValueError:  # a scenario that splits no sequence, such as `collectives`
        return LEAST_S


def longest_phase_s(configuration: Configuration) -> float:
    """Seconds of silence that theory expects at most: one resource after the other.

    Raises ValueError where heads or sequence do not divide.
    """
    c = configuration
    work = work_per_rank(
        c.model,
        world=c.world,
        sp=c.sp,
        zero=c.zero,
        micro_batch=c.micro_batch,
        seq_len=c.seq_len,
        element_bytes=_ELEMENT_BYTES[c.dtype],
    )
    if c.comm.device == "cpu":
        return _sent_bytes(work) / CPU_LINK
    sharing = c.world if c.comm.oversubscribe else 1  # at worst all ranks are on one GPU
    return (
        sharing * (work.matmul_flops + work.attention_flops) / GPU_FLOPS[c.dtype]
        + sharing * work.memory_bytes / GPU_MEMORY_BANDWIDTH
        + _sent_bytes(work) / (SHARED_GPU_LINK if c.comm.oversubscribe else GPU_LINK)
    )


def _sent_bytes(work: Work) -> float:
    return work.all_to_all_bytes + work.gradient_bytes
