"""The parts of a record that say what its ranks did and found; `bench.record` has them all."""

from __future__ import annotations

from typing import Dict, List, Literal, Optional

from pydantic import BaseModel, ConfigDict

from bench.specs import ReferenceName

GradientMode = Literal["exact", "proxy", "sketch", "directional", "off"]
"""A `gradient_check` that is decided: `auto` has become one of these."""
Wanted = Literal["exact", "proxy", "sketch", "directional", "off", "first_loss"]
"""What a trial needs of its reference: all for `exact`, the float64 loss for `first_loss`, and
the initial weights for every other mode."""
MODE_MARKS = {"proxy": "2-layer proxy", "directional": "directional"}
"""What stands beside a verdict, for people, that is not of the trial's whole gradient."""

PHASES = ("forward", "aggregate", "backward", "optimizer")
"""The parts of a measured step, in order; `step` is their whole, timed on its own."""

CPU_PHASES = ("trace", "breakdown")
"""Phases in which a rank works by itself on the CPU and waits for nobody, on GPU too."""


NOT_STARTED = "_STATUS_NOT_INITIALIZED"
"""What cuBLAS, cuDNN and cuSPARSE say when they cannot start: for want of memory, or otherwise."""


class Part(BaseModel):
    """Base of the parts of a record; a field that this version does not know is an error."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class RankError(Part):
    """What a rank raised."""

    rank: int
    type: str
    """Qualified name of the exception's class."""
    message: str
    traceback: str
    phase: str
    """`setup`, `forward`, `aggregate`, `backward`, `optimizer`, `gradient`, …"""
    step: Optional[int] = None
    """Index of the step, warm-up included; None outside the steps."""
    device_free_bytes: Optional[int] = None
    """CUDA: memory free on the rank's GPU then, as the driver counts it; asked only where `message`
    says `NOT_STARTED`, which tells nothing of why."""


class RankOutcome(Part):
    """Where a rank was when the trial ended."""

    rank: int
    outcome: Literal["finished", "raised", "killed", "exited", "interrupted"]
    """`killed`: by a signal from outside; `interrupted`: by spbench, once the trial had failed."""
    phase: str
    step: Optional[int] = None
    signal: Optional[int] = None
    exit_code: Optional[int] = None
    stack: Optional[str] = None
    """Python stack of all threads, taken when the trial hung or ran out of time."""


class RankSamples(Part):
    """Raw times of one rank, in order of the steps."""

    rank: int
    warmup_s: List[float]
    """Seconds per warm-up step, of which there may be more than `config.warmup_steps`; never part
    of a figure."""
    step_s: List[float]
    """Seconds per measured step."""
    phases_s: Dict[str, List[float]]
    """Seconds per measured step, by phase (`PHASES`)."""
    losses: List[Optional[float]]
    """Loss that this rank back-propagated, per step, warm-up included; None: not finite."""


class RankMemory(Part):
    """Memory of one rank, measured from the end of the warm-up to the last step."""

    rank: int
    peak_bytes: int
    """CUDA: peak of allocated memory. CPU: peak of the rank's own anonymous memory above what
    it shared with the server when it was forked."""
    peak_reserved_bytes: Optional[int] = None
    """CUDA only: peak of memory that the caching allocator held."""
    baseline_bytes: int
    """CPU: anonymous memory at fork time, already subtracted. CUDA: 0."""
    device_used_bytes: Optional[int] = None
    """CUDA only: memory in use on the rank's GPU after the last step, as the driver counts it: by
    every process, so by all ranks that share the GPU."""
    outside_allocator_bytes: Optional[int] = None
    """CUDA only: the part of `device_used_bytes` that is not the rank's caching allocator's: CUDA
    context, NCCL's buffers, libraries, other programs. None where ranks share the GPU."""


class BlockScale(Part):
    """The scale of a block of parameters, where each is measured on its own (`directional`)."""

    name: str
    scale: Optional[float]
    scale_error: Optional[float]
    """Estimated."""


class OtherReference(Part):
    """The same gradient beside the reference r' of the other definition (`config.reference`)."""

    reference: ReferenceName
    verdict: Literal["match", "scaled", "wrong", "none"]
    scale: Optional[float]
    scale_label: str
    relative_error: Optional[float]
    """|g - r'| / |r'|."""
    residual: Optional[float]
    reference_loss: Optional[float]
    distance: float
    """|r - r'| / |r'|, of the references alone."""


class GradientError(Part):
    """The first step's gradient, before any clipping, beside the exact reference.

    The formulas are in `bench.worker.metrics.gradient`.
    """

    mode: Literal["exact", "proxy", "directional"] = "exact"
    """What it was compared with: see `docs/correctness-at-scale.md`."""
    verdict: Literal["match", "scaled", "wrong", "none"]
    scale: Optional[float]
    """Least-squares factor between gradient g and reference r: <g, r> / <r, r>."""
    scale_error: Optional[float] = None
    """Estimated error of `scale`, where the mode only estimates it (`directional`)."""
    scale_label: str
    """`×1`, `×2`, `×1/2`, or the number."""
    relative_error: Optional[float]
    """|g - r| / |r|."""
    residual: Optional[float]
    """|g - scale r| / (|scale| |r|): what is left when the scale is taken out."""
    cosine: Optional[float]
    worst_parameter: Optional[str]
    worst_relative_error: Optional[float]
    noise_floor: Optional[float]
    """`relative_error` of one process in the trial's dtype: what the dtype alone costs."""
    tolerance: Optional[float]
    """Residual up to which the direction counts as right."""
    scale_tolerance: Optional[float] = None
    """Deviation of `scale` from 1 up to which it counts as 1; None: before version 3, or the mode
    has no other than `tolerance`."""
    parameters: int
    missing: List[str]
    """Parameters without a gradient."""
    zero: List[str]
    """Parameters whose gradient is zero where the reference's is not."""
    nonfinite: List[str]
    """Parameters with a NaN or an infinity."""
    rank: int
    """The rank whose gradient was furthest from the reference; the figures above are its own."""
    ranks_agree: bool
    """Whether every rank saw the same gradient up to `tolerance`."""
    reference_loss: Optional[float]
    loss: Optional[float]
    """Mean over ranks of the loss of the first step."""
    blocks: List[BlockScale] = []
    """`directional` only."""
    other: Optional[OtherReference] = None
    """Where data-parallel replicas differ in their numbers of valid tokens. None: they do not, the
    mode has no such gradient (`directional`), or before version 3."""


class Clipping(Part):
    """DeepSpeed's clipping of the first step's gradient, inside `step()`.

    `gradient` is of the gradient before it; what the optimizer consumed is `factor` times that.
    """

    threshold: float
    """`gradient_clipping` as DeepSpeed's engine has it, whose default depends on its version; 0:
    it does not clip."""
    norm: Optional[float] = None
    """Of the whole gradient between backward and `step()`; None: not finite, or this DeepSpeed
    keeps it where nobody looks."""
    norm_after: Optional[float] = None
    """Of what torch's optimizer was handed; None: as above, or the step was skipped."""
    factor: Optional[float] = None
    """`norm_after` / `norm`."""


class FirstLoss(Part):
    """The first step's loss beside a forward pass of one device in float64.

    It tells a wrong forward pass, which a direction along the gradient found cannot, where that
    moves the loss by more than rounding: at the initial weights attention says little yet.
    """

    loss: Optional[float]
    """As `config.reference` defines it, from what the forward pass gave each rank, whatever the
    aggregation makes of it; None: not finite."""
    reference: Optional[float] = None
    tolerance: Optional[float] = None
    """Difference that counts as rounding."""
    agrees: Optional[bool] = None
    reason: Optional[str] = None
    """`not compared: …`."""


class CollectiveCount(Part):
    """One rank's calls of one collective in one phase of the first step."""

    rank: int
    phase: str
    collective: str
    calls: int
    bytes: int
    """Bytes of the tensors that this rank handed in."""
