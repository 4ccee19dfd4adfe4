"""What the GPUs did during a trial: clocks, power, temperature, and why they were slowed down.

The controller reads NVML before a trial and, while ranks are in their steps, between two looks
at their progress (`bench.controller.host`): about twice a second, from its own process, so that
nothing runs beside the ranks. Whatever a card does not say is None.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Sequence
from typing import Any, Optional

from bench.controller import gpus
from bench.controller.gpus import ask, text
from bench.record import GpuReading, GpuSamples, GpuState

LEAST_PERIOD_S = 0.5
"""Between two readings of the same GPU."""
MEMORY_LIMIT = 256 * 2**20
"""Bytes in use before a trial beyond which somebody else computes there. spbench has no context
on a GPU then; the context of a process takes some 300 MB before it allocates anything, and a
display less than this limit."""

_SM, _MEMORY_CLOCK = 1, 2  # NVML_CLOCK_SM, NVML_CLOCK_MEM
_TEMPERATURE_OF_GPU = 0  # NVML_TEMPERATURE_GPU
_UNCORRECTED, _SINCE_BOOT = 1, 0  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC
_COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}
_REASONS = {  # nvmlClocksEventReasons of nvml.h
    0x001: "idle",
    0x002: "clocks_setting",
    0x004: "power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake",
    0x100: "display_clocks_setting",
}
DISTURBING = ("hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake")
"""Reasons that heat, a failing supply or a neighbour brings, and that come and go. A cap on power
or clocks is how the card is set: it holds for every trial alike, and under a large matrix product
it is the rule."""


class GpuWatch:
    """Reads the visible GPUs over one trial: `begin()`, `sample()` in its steps, `finish()`."""

    def __init__(self) -> None:
        self._before: list[GpuState] = []
        self._readings: list[list[GpuReading]] = []
        self._sampled = 0.0

    def begin(self) -> None:
        """Read the GPUs before a trial; what was read of another is forgotten."""
        nvml, handles = gpus.visible_handles()
        self._before = [_state(nvml, gpu) for gpu in handles]
        self._readings = [[] for _ in handles]

    def sample(self) -> None:
        """Read the GPUs once, unless that was less than `LEAST_PERIOD_S` ago."""
        now = time.monotonic()
        if not self._before or now - self._sampled < LEAST_PERIOD_S:
            return
        self._sampled = now
        nvml, handles = gpus.visible_handles()
        for gpu, readings in zip(handles, self._readings):
            readings.append(_reading(nvml, gpu))

    def finish(self) -> list[GpuState]:
        """The GPUs as they were since `begin()`, in the order of NVML."""
        nvml, handles = gpus.visible_handles()
        return [
            before.model_copy(
                update={
                    "steps": summary(readings),
                    "new_ecc_errors": _difference(_ecc_errors(nvml, gpu), before.ecc_errors),
                }
            )
            for gpu, before, readings in zip(handles, self._before, self._readings)
        ]


def noise(states: Sequence[GpuState], processes: Collection[str]) -> list[str]:
    """Why the GPUs were not quiet, for people; empty when they were.

    `processes` are those known to compute there: memory in use is a reason of its own only where
    no process was seen, as in a container.
    """
    reasons = []
    for index, state in enumerate(states):
        slowed = [one for one in DISTURBING if state.steps and one in state.steps.throttle_reasons]
        if slowed:
            reasons.append(f"GPU {index} was slowed down: {', '.join(slowed)}")
        used = state.memory_used_before_bytes or 0
        if used > MEMORY_LIMIT and not processes:
            reasons.append(f"GPU {index}: {used / 2**20:,.0f} MiB were in use before")
        if state.new_ecc_errors:
            reasons.append(f"GPU {index}: {state.new_ecc_errors} uncorrected memory errors")
    return reasons


def summary(readings: Sequence[GpuReading]) -> Optional[GpuSamples]:
    """What `readings` of one GPU come to; None without any."""
    if not readings:
        return None
    reasons = {one for reading in readings for one in reading.throttle_reasons or ()}
    return GpuSamples(
        count=len(readings),
        sm_clock_mhz=_spread([one.sm_clock_mhz for one in readings]),
        memory_clock_mhz=_spread([one.memory_clock_mhz for one in readings]),
        power_w=_spread([one.power_w for one in readings]),
        temperature_c=_spread([one.temperature_c for one in readings]),
        throttle_reasons=[name for name in _REASONS.values() if name in reasons],
    )


def _state(nvml: Any, gpu: object) -> GpuState:
    used, total = memory(nvml, gpu)
    mig, ecc = ask(nvml, "nvmlDeviceGetMigMode", gpu), ask(nvml, "nvmlDeviceGetEccMode", gpu)
    limit = ask(nvml, "nvmlDeviceGetEnforcedPowerLimit", gpu)
    return GpuState(
        name=text(ask(nvml, "nvmlDeviceGetName", gpu)),
        uuid=text(ask(nvml, "nvmlDeviceGetUUID", gpu)),
        mig=None if mig is None else bool(mig[0]),
        compute_mode=_COMPUTE_MODES.get(ask(nvml, "nvmlDeviceGetComputeMode", gpu)),
        ecc=None if ecc is None else bool(ecc[0]),
        ecc_errors=_ecc_errors(nvml, gpu),
        sm_clock_limit_mhz=ask(nvml, "nvmlDeviceGetMaxClockInfo", gpu, _SM),
        power_limit_w=None if limit is None else limit / 1000,
        memory_bytes=total,
        memory_used_before_bytes=used,
        before=_reading(nvml, gpu),
    )


def _reading(nvml: Any, gpu: object) -> GpuReading:
    power = ask(nvml, "nvmlDeviceGetPowerUsage", gpu)  # mW
    mask = ask(nvml, "nvmlDeviceGetCurrentClocksEventReasons", gpu)
    if mask is None:  # its name before driver 535
        mask = ask(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", gpu)
    return GpuReading(
        sm_clock_mhz=ask(nvml, "nvmlDeviceGetClockInfo", gpu, _SM),
        memory_clock_mhz=ask(nvml, "nvmlDeviceGetClockInfo", gpu, _MEMORY_CLOCK),
        power_w=None if power is None else power / 1000,
        temperature_c=ask(nvml, "nvmlDeviceGetTemperature", gpu, _TEMPERATURE_OF_GPU),
        throttle_reasons=None
        if mask is None
        else [name for bit, name in _REASONS.items() if mask & bit],
    )


def memory(nvml: Any, gpu: object) -> tuple[Optional[int], Optional[int]]:
    """Bytes in use and in total.

    Drivers from 510 on count what they keep for themselves as used, unless they are asked by the
    second version of the question.
    """
    found = ask(nvml, "nvmlDeviceGetMemoryInfo", gpu, getattr(nvml, "nvmlMemory_v2", None))
    if found is None:
        found = ask(nvml, "nvmlDeviceGetMemoryInfo", gpu)
    return (None, None) if found is None else (found.used, found.total)


def _ecc_errors(nvml: Any, gpu: object) -> Optional[int]:
    errors: Optional[int] = ask(nvml, "nvmlDeviceGetTotalEccErrors", gpu, _UNCORRECTED, _SINCE_BOOT)
    return errors


def _difference(after: Optional[int], before: Optional[int]) -> Optional[int]:
    return None if after is None or before is None else max(0, after - before)


def _spread(values: Sequence[Optional[float]]) -> Optional[tuple[float, float, float]]:
    """Minimum, median and maximum; None where nothing was said."""
    said = [value for value in values if value is not None]
    return (min(said), statistics.median(said), max(said)) if said else None
