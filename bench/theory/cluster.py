"""Machines to predict for: what a cluster's parts can do, and how much of it a step gets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """What joins ranks."""

    bandwidth: float
    """Of one rank, in one direction [bytes/s]."""
    latency_s: float
    """Of one collective call, however short."""


@dataclass(frozen=True)
class Cluster:
    """A cluster of equal nodes, seen from one GPU (or one rank on a CPU)."""

    name: str
    gpus_per_node: int
    peak_flops: float
    """Dense matrix products in the dtype that is trained [FLOP/s]."""
    memory_bytes: float
    memory_bandwidth: float
    """[bytes/s]"""
    intra: Link
    """Within a node."""
    inter: Link
    """Between nodes."""
    counts_written_only: bool = False
    """Memory counts once it is written to, as for a process on a CPU, not when allocated."""


@dataclass(frozen=True)
class Efficiencies:
    """How much of a cluster's rates a step gets (shares of 1), and what no rate explains."""

    matmul: float = 1.0
    attention: float = 1.0
    memory: float = 1.0
    all_to_all: float = 1.0
    gradient: float = 1.0
    overlap: float = 0.0
    """Share of the backward pass behind which the gradient reduction can hide."""
    step_overhead_s: float = 0.0
    """Seconds of every step, whatever its size."""
    layer_overhead_s: float = 0.0
    """Seconds of every layer of every step."""
