"""How a gradient is to be compared: by what the exact reference would cost.

It follows from the configuration alone, never from the machine at hand, so that one hash always
means one mode. The constants below are therefore no measurements of a machine but the least that
a machine of each kind is taken to offer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional

from bench.theory.reference_cost import (
    forward_flops,
    reference_by_layers,
    reference_device_bytes,
    reference_disk_bytes,
    reference_flops,
    reference_host_bytes,
    whole_reference_bytes,
)

if TYPE_CHECKING:
    from bench.record import GradientMode
    from bench.trial import Configuration

PROXY_LAYERS = 2
"""Layers of a proxy: the fewest of which one hands its gradient on to another."""
BUDGET_S = 600.0
"""Seconds that a reference may take by theory: the default of `limits.timeout_s`."""
FLOAT64_FLOPS: Dict[str, float] = {"cpu": 2e10, "cuda": 3e13}
"""FLOP/s in float64 of the one process, or the one GPU, that makes a reference, by device. A core
with 256-bit vectors does 4e10 in a large matrix product, an H100's tensor cores 6.7e13: half of
each, since softmax, loss and norms run slower."""
MEMORY_BYTES: Dict[str, int] = {"cpu": 16 << 30, "cuda": 40 << 30, "host": 64 << 30}
"""Memory that it may take: on CPU half of a workstation's 32 GB, on GPU half of a card's 80 GB,
and in the memory of a machine with GPUs what such machines have for each of them."""
DISK_BYTES = 40 << 30
"""What it may leave on the disk. Every rank reads the gradient, 8 bytes a parameter: that of 8B
has 64 GB, and to read and compare it takes minutes on every rank."""


STEPS_OF_THEIR_OWN = ("mutation", "recipe")
"""Scenarios whose step is another than that of `train`."""
FIRST_LOSS_S = 120.0
"""Seconds that the forward pass may take by theory which the first loss is compared with."""


class Decision(NamedTuple):
    """What `gradient_check` comes to."""

    mode: GradientMode
    reason: Optional[str] = None
    """`not compared: …` where `auto` found nothing to compare with."""


def decision(configuration: Configuration) -> Decision:
    """The mode that `configuration.gradient_check` comes to, and why where that is `off`.

    `auto` is `exact` where the reference is affordable, else, on GPU, `proxy` where that one's is.
    A proxy of a model that has no more than `PROXY_LAYERS` is the trial itself: `exact`.
    """
    c = configuration
    if c.gradient_check == "proxy" and c.model.layers <= PROXY_LAYERS:
        return Decision("exact")
    if c.gradient_check != "auto":
        return Decision(c.gradient_check)
    if affordable(c):
        return Decision("exact")
    deep = c.model.layers > PROXY_LAYERS
    if c.comm.device == "cuda" and deep and affordable(proxy_of(c)):
        return Decision("proxy")
    others = "sketch, directional or proxy compares" if deep else "sketch or directional compares"
    memory, disk = _size(sum(_memory_bytes(c).values())), _size(reference_disk_bytes(c))
    return Decision(
        "off",
        f"not compared: the exact reference would take about {_duration(reference_seconds(c))}, "
        f"{memory} of memory and {disk} of disk; gradient_check={others} without it",
    )


def gradient_mode(configuration: Configuration) -> GradientMode:
    """The mode that `configuration.gradient_check` comes to."""
    return decision(configuration).mode


def affordable(configuration: Configuration) -> bool:
    """Whether the exact reference stays within every budget above."""
    return (
        reference_seconds(configuration) <= BUDGET_S
        and all(size <= MEMORY_BYTES[kind] for kind, size in _memory_bytes(configuration).items())
        and reference_disk_bytes(configuration) <= DISK_BYTES
    )


def reference_seconds(configuration: Configuration) -> float:
    """How long the exact reference takes at the rate that is taken for granted [s]."""
    return reference_flops(configuration) / FLOAT64_FLOPS[configuration.comm.device]


def first_loss_reason(configuration: Configuration) -> Optional[str]:
    """`not compared: …` where one forward pass takes too long; None where it is affordable."""
    c = configuration
    seconds = forward_flops(c) / FLOAT64_FLOPS[c.comm.device]
    if seconds <= FIRST_LOSS_S:
        return None
    return (
        "not compared: a forward pass in float64 on one device would take about "
        f"{_duration(seconds)}"
    )


def proxy_of(configuration: Configuration) -> Configuration:
    """The trial of one step that is compared in the stead of `configuration`: `PROXY_LAYERS` deep.

    All else that the gradient depends on stays: widths, heads, vocabulary, length, split, ZeRO
    stage and buckets, aggregation, dtype, mask; and the scenario where it changes the step.
    """
    model = configuration.model.model_copy(update={"layers": PROXY_LAYERS})
    fields: Dict[str, Any] = {
        "model": model,
        "gradient_check": "exact",
        "warmup_steps": 1,
        "steps": 1,
    }
    if configuration.scenario not in STEPS_OF_THEIR_OWN:
        fields.update(scenario="train", options={})
    return configuration.model_copy(update=fields)


def _memory_bytes(configuration: Configuration) -> Dict[str, int]:
    """What the reference takes, by the kind of memory."""
    c = configuration
    if not reference_by_layers(c):
        return {"cpu": whole_reference_bytes(c)}
    if c.comm.device == "cuda":
        return {"cuda": reference_device_bytes(c), "host": reference_host_bytes(c)}
    return {"cpu": reference_device_bytes(c) + reference_host_bytes(c)}


def _duration(seconds: float) -> str:
    """`3 h`, `20 min`, `5 s`: one unit, whole numbers."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: int) -> str:
    """`82 GB`, `5 MB`."""
    return f"{count / 1e9:,.0f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
