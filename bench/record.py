"""What happened: the record that every trial leaves.

Shared by the controller, the workers and the analysis, like `bench.trial`. Its parts are in
`bench.record_parts` and `bench.record_provenance`; import them from here. `results/README.md`
documents every field; `bench.record_files` writes and reads them.

History of the format (`SCHEMA_VERSION`):

1. The first.
2. `config.gradient_check` is a name, where it was a boolean (`true` is `auto`, `false` is `off`);
   `config.limits.hang_s` may be null, and `hang_s` says what it came to. New: `config.matmul`,
   `config.sdpa`, `gradient_mode`, `gradient_reason`, `gradient.mode`, `gradient.scale_error`,
   `gradient.blocks`, `first_loss`, `memory.device_used_bytes`, `memory.outside_allocator_bytes`,
   `machine.gpu_states`, `worker.sdpa_kernel`, `worker.variables`, `first_ended`,
   `errors.device_free_bytes`, `flight_recorder`, `sketch`, `sketch_version`.
3. New: `clipping`, `code`, `config.reference`, `gradient.other`, `gradient.scale_tolerance`,
   `machine.nodes`, `machine.transport`, `config.mesh_setup`, `worker.mesh_setup`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Dict, List, Optional, Tuple

from bench.record_parts import (
    CPU_PHASES,
    MODE_MARKS,
    NOT_STARTED,
    PHASES,
    BlockScale,
    Clipping,
    CollectiveCount,
    FirstLoss,
    GradientError,
    GradientMode,
    OtherReference,
    Part,
    RankError,
    RankMemory,
    RankOutcome,
    RankSamples,
    Wanted,
)
from bench.record_provenance import (
    GpuReading,
    GpuSamples,
    GpuState,
    MachineProvenance,
    WorkerProvenance,
)
from bench.trial import Configuration, Trial

__all__ = [
    "CPU_PHASES",
    "MODE_MARKS",
    "NOT_STARTED",
    "PHASES",
    "READABLE_VERSIONS",
    "SCHEMA_VERSION",
    "BlockScale",
    "Clipping",
    "CollectiveCount",
    "FirstLoss",
    "GpuReading",
    "GpuSamples",
    "GpuState",
    "GradientError",
    "GradientMode",
    "MachineProvenance",
    "OtherReference",
    "Part",
    "RankError",
    "RankMemory",
    "RankOutcome",
    "RankSamples",
    "Record",
    "Status",
    "Wanted",
    "WorkerProvenance",
]

SCHEMA_VERSION = 3
READABLE_VERSIONS = frozenset({1, 2, 3})
"""Versions that `Record` validates and every reader reads."""


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
    clipping: Optional[Clipping] = None
    """None: before version 3, no training step was taken, or the trial failed."""
    first_loss: Optional[FirstLoss] = None
    """None: `gradient` has it (`exact`), no comparison was asked for, or the trial failed."""
    sketch: Optional[str] = None
    """The first step's gradient as a sketch (`bench.worker.checking.sketch`), relative to the
    results folder; None unless `gradient_mode` is `sketch`."""
    sketch_version: Optional[int] = None
    """Of the sketch's hash and file: only sketches of one version can be compared."""
    collectives: List[CollectiveCount] = []
    code: Optional[Dict[str, str]] = None
    """Fingerprint of the code that the worker ran, by role (`loss`, `attention`, `model`,
    `scenario`, `worker`, …). None: before version 3, or nothing ran."""
    worker: Optional[WorkerProvenance] = None
    machine: Optional[MachineProvenance] = None
    details: Dict[str, Any] = {}
    """What a scenario adds. `headline`: its finding in a few words, for the display; `rows`: what
    the ranks noted on their way, in rank order, there even when a rank failed later, and
    `rows_left_out`: how many of too many were not kept (`bench.rows`)."""
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
