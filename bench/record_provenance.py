"""The parts of a record that say what it was measured with and on: software, machine, GPUs."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

from bench.record_parts import Part


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
    mesh_setup: Optional[str] = None
    """How DeepSpeed was told of sequence parallelism: what `config.mesh_setup` came to. None: the
    ranks trained nothing, or schema version 1 or 2."""
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
    nodes: int = 1
    transport: Optional[str] = None
    """What carries data between GPUs or nodes (`NVLink`, `PCIe`, …); None: not known, or none."""
    spbench: str
    commit: Optional[str] = None
    dirty: Optional[bool] = None
    """Whether spbench's working tree had uncommitted changes."""
