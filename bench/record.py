"""What happened: the record that every trial leaves.

Shared by the controller, the workers and the analysis, like `bench.trial`. `results/README.md`
documents every field; `bench.record_files` writes and reads them.

History of the format (`SCHEMA_VERSION`):

1. The first.
2. `config.gradient_check` is a name, where it was a boolean (`true` is `auto`, `false` is `off`);
   `config.limits.hang_s` may be null, and `hang_s` says what it came to. New: `config.matmul`,
   `config.sdpa`, `gradient_mode`, `gradient_reason`, `gradient.mode`, `gradient.scale_error`,
   `gradient.blocks`, `first_loss`, `memory.device_used_bytes`, `memory.outside_allocator_bytes`,
   `machine.gpu_states`, `worker.sdpa_kernel`, `worker.variables`, `first_ended`,
   `flight_recorder`, `sketch`, `sketch_version`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Dict, List, Literal, Optional, Tuple

from pydantic import BaseModel, ConfigDict

from bench.trial import Configuration, Trial

SCHEMA_VERSION = 2
READABLE_VERSIONS = frozenset({1, 2})
"""Versions that `Record` validates and every reader reads."""

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


class Status(str, Enum):
    """How a trial ended."""

    OK = "ok"
    ERROR = "error"
    """A rank raised."""
    OOM = "oom"
    HANG = "hang"
    """No rank made progress for `hang_s`, or NCCL's watchdog gave up first."""
    TIMEOUT = "timeout"
    """Progress, but not done within `limits.timeout_s`."""
    CRASH = "crash"
    """A rank was ended by a signal or left without a result."""
    UNSUPPORTED = "unsupported"
    """Refused before it was launched: these values cannot run together."""
    ENVIRONMENT = "environment"
    """The environment itself is broken, or is not the one that was asked for."""


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


class GradientError(Part):
    """The first step's gradient beside the exact reference.

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


class FirstLoss(Part):
    """The first step's loss beside a forward pass of one device in float64.

    It tells a wrong forward pass, which a direction along the gradient found cannot, where that
    moves the loss by more than rounding: at the initial weights attention says little yet.
    """

    loss: Optional[float]
    """Mean over replicas of the mean over a replica's valid labels, from what the forward pass
    gave each rank, whatever the aggregation makes of it; None: not finite."""
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


class WorkerProvenance(Part):
    """What the worker saw of itself."""

    python: str
    python_path: str
    torch: str
    torch_git: Optional[str] = None
    cuda: Optional[str] = None
    nccl: Optional[str] = None
    deepspeed: str
    transformers: Optional[str] = None
    numpy: Optional[str] = None
    devices: List[str] = []
    """Name of each rank's device."""
    driver: Optional[str] = None
    threads_per_rank: Optional[int] = None
    warnings: List[str] = []
    """Warnings and log lines of level warning that libraries emitted, each once."""
    late_imports: List[str] = []
    """Modules that the ranks had to import themselves; the server preloads them from then on."""
    sdpa_kernel: Optional[str] = None
    """The kernel that torch chose for the first attention of the first step: `flash`, `efficient`,
    `cudnn`, `math` or `unknown`. None: no attention was computed, or this torch does not tell."""
    variables: Dict[str, str] = {}
    """Environment variables NCCL_*, TORCH_*, PYTORCH_*, CUDA_* and DS_* of the first rank that
    reported, each value cut to 500 characters."""


class GpuReading(Part):
    """A GPU at one moment; None: the card does not say."""

    sm_clock_mhz: Optional[int] = None
    memory_clock_mhz: Optional[int] = None
    power_w: Optional[float] = None
    temperature_c: Optional[int] = None
    throttle_reasons: Optional[List[str]] = None
    """Why its clocks were below their most: `idle`, `power_cap`, `hw_thermal_slowdown`, …"""


class GpuSamples(Part):
    """A GPU during the steps of a trial: minimum, median and maximum of what was read."""

    count: int
    """Readings, 0.5 s apart or more."""
    sm_clock_mhz: Optional[Tuple[float, float, float]] = None
    memory_clock_mhz: Optional[Tuple[float, float, float]] = None
    power_w: Optional[Tuple[float, float, float]] = None
    temperature_c: Optional[Tuple[float, float, float]] = None
    throttle_reasons: List[str] = []
    """Those seen in any reading."""


class GpuState(Part):
    """A visible GPU before a trial and during its steps; None: the card does not say."""

    name: Optional[str] = None
    uuid: Optional[str] = None
    mig: Optional[bool] = None
    """Whether it is cut into instances (MIG)."""
    compute_mode: Optional[str] = None
    """`default`, `exclusive_process` or `prohibited`."""
    ecc: Optional[bool] = None
    ecc_errors: Optional[int] = None
    """Uncorrected memory errors between the driver's start and the trial."""
    new_ecc_errors: Optional[int] = None
    """Uncorrected memory errors during the trial."""
    sm_clock_limit_mhz: Optional[int] = None
    power_limit_w: Optional[float] = None
    memory_bytes: Optional[int] = None
    memory_used_before_bytes: Optional[int] = None
    """In use before the trial, none of it by spbench."""
    before: GpuReading = GpuReading()
    steps: Optional[GpuSamples] = None
    """None: the steps were over before anything was read."""


class MachineProvenance(Part):
    """What the controller saw of the machine."""

    hostname: str
    os: str
    cpu: str
    cores: int
    governor: Optional[str] = None
    memory_bytes: int
    gpus: List[str] = []
    load_before: float
    """1-minute load average."""
    load_after: float
    steal: float
    """Share of the trial's CPU time that the hypervisor took [0..1]."""
    foreign_cores: float
    """Cores kept busy by processes other than spbench's, on average over the trial."""
    foreign_gpu_processes: List[str] = []
    gpu_states: List[GpuState] = []
    """Of the visible GPUs, as `gpus` names them."""
    spbench: str
    commit: Optional[str] = None
    dirty: Optional[bool] = None
    """Whether spbench's working tree had uncommitted changes."""


class Record(Part):
    """What a trial left, whatever happened."""

    schema_version: int = SCHEMA_VERSION
    trial_id: str
    config_hash: str
    config: Configuration
    round: int
    attempt: int
    status: Status
    reason: Optional[str] = None
    """One line for people: why the status is not `ok`."""
    started: str
    """ISO 8601, UTC."""
    duration_s: float
    """From the request to the last rank's end."""
    hang_s: Optional[float] = None
    """Seconds without progress after which the trial would have ended as `hang`."""
    experiment: Optional[str] = None
    emulated: bool
    """Torch's NCCL code path ran on gloo."""
    timings_valid: bool
    """False where ranks shared a GPU."""
    noisy: List[str] = []
    """Why the machine was not quiet; empty when it was."""
    errors: List[RankError] = []
    first_ended: Optional[int] = None
    """The rank that was the first to end without a result, where that settled the status."""
    ranks: List[RankOutcome] = []
    samples: List[RankSamples] = []
    memory: List[RankMemory] = []
    gradient_mode: Optional[GradientMode] = None
    """How the gradient was compared: what `config.gradient_check` came to. None: before version 2,
    or the trial did not get so far."""
    gradient_reason: Optional[str] = None
    """`not compared: …`: why there is no gradient although a comparison was asked for."""
    gradient: Optional[GradientError] = None
    first_loss: Optional[FirstLoss] = None
    """None: `gradient` has it (`exact`), no comparison was asked for, or the trial failed."""
    sketch: Optional[str] = None
    """The first step's gradient as a sketch (`bench.worker.checking.sketch`), relative to the
    results folder; None unless `gradient_mode` is `sketch`."""
    sketch_version: Optional[int] = None
    """Of the sketch's hash and file: only sketches of one version can be compared."""
    collectives: List[CollectiveCount] = []
    worker: Optional[WorkerProvenance] = None
    machine: Optional[MachineProvenance] = None
    details: Dict[str, Any] = {}
    """What a scenario adds. `headline`: its finding in a few words, for the display; `rows`: what
    the ranks noted on their way, in rank order, there even when a rank failed later."""
    log: Optional[str] = None
    """Output of the ranks, relative to the results folder."""
    flight_recorder: List[str] = []
    """What each rank's last collectives were doing when the trial hung, relative to the results
    folder: pickles that `torchfrtrace` reads."""

    @property
    def key(self) -> Tuple[str, int]:
        """The trial that this record settles: configuration hash and round."""
        return (self.config_hash, self.round)

    @classmethod
    def of(
        cls, trial: Trial, status: Status, started: str, duration_s: float, **fields: Any
    ) -> Record:
        """The record of `trial`, with what follows from its configuration filled in.

        `timings_valid` is in `fields` where ranks saw whether they share a GPU.
        """
        comm = trial.configuration.comm
        fields.setdefault("timings_valid", not comm.oversubscribe)
        return cls(
            trial_id=trial.id,
            config_hash=trial.configuration.hash,
            config=trial.configuration,
            round=trial.round,
            attempt=trial.attempt,
            status=status,
            started=started,
            duration_s=duration_s,
            emulated=comm.emulated,
            **fields,
        )
