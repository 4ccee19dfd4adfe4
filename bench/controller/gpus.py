"""NVIDIA's GPUs as their driver (NVML) shows them: names, versions, who computes on them.

NVML tells which cards are there. What torch can use of them: `bench.controller.torch_gpus`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from types import ModuleType


def visible_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that `CUDA_VISIBLE_DEVICES` leaves visible; [] without any."""
    return list(_gpu_names(os.environ.get("CUDA_VISIBLE_DEVICES")))


@lru_cache(maxsize=1)
def driver_version() -> Optional[str]:
    """Version of NVIDIA's driver; None without one."""
    nvml = _load_nvml()
    return None if nvml is None else text(ask(nvml, "nvmlSystemGetDriverVersion"))


def cuda_of_driver() -> Optional[tuple[int, int]]:
    """Newest CUDA that the driver knows, such as (12, 4); None without a driver.

    `nvmlSystemGetCudaDriverVersion_v2` asks the library that CUDA programs load, so that the
    driver's forward-compatibility package counts. It encodes as 1000 major + 10 minor.
    """
    nvml = _load_nvml()
    number = None if nvml is None else ask(nvml, "nvmlSystemGetCudaDriverVersion_v2")
    return None if number is None else (number // 1000, number % 1000 // 10)


def mig() -> bool:
    """Whether a visible GPU is cut into instances (MIG) or is such an instance."""
    nvml, handles = visible_handles()
    modes = [ask(nvml, "nvmlDeviceGetMigMode", gpu) for gpu in handles]
    return any(mode is not None and mode[0] for mode in modes) or any(
        parent_of(nvml, gpu) is not None for gpu in handles
    )


def visible_handles() -> tuple[Any, list[object]]:
    """NVML and its handles of the visible GPUs; (None, []) without a driver."""
    nvml = _load_nvml()
    if nvml is None:
        return None, []
    return nvml, _gpu_handles(nvml, os.environ.get("CUDA_VISIBLE_DEVICES"))


def parent_of(nvml: Any, gpu: object) -> Optional[object]:
    """The card that the MIG instance `gpu` is a part of; None where `gpu` is a card."""
    if not getattr(ask(nvml, "nvmlDeviceIsMigDeviceHandle", gpu), "value", False):
        return None
    card: Optional[object] = ask(nvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", gpu)
    return card


def strangers(own: Collection[int]) -> list[str]:
    """Processes outside of `own` that compute on a visible GPU, as `name (pid)`."""
    nvml, handles = visible_handles()
    found = []
    for gpu in handles:
        running = ask(nvml, "nvmlDeviceGetComputeRunningProcesses", gpu) or []
        # A container sees pids that are not its own; what has no name here says nothing.
        pids = [one.pid for one in running if one.pid not in own]
        found += [f"{name} ({pid})" for pid in pids if (name := _process_name(pid))]
    return list(dict.fromkeys(found))


def transport() -> Optional[str]:
    """What data takes between visible GPUs: `NVLink`, `PCIe`, or `NVLink and PCIe`.

    None with fewer than two, and where the driver does not say it of every pair.
    """
    nvml, handles = visible_handles()
    if len(handles) < 2:
        return None
    kind = getattr(nvml, "NVML_P2P_CAPS_INDEX_NVLINK", 2)
    pairs = itertools.combinations(handles, 2)
    answers = {ask(nvml, "nvmlDeviceGetP2PStatus", one, other, kind) for one, other in pairs}
    if None in answers:
        return None
    linked = {answer == getattr(nvml, "NVML_P2P_STATUS_OK", 0) for answer in answers}
    return {frozenset({True}): "NVLink", frozenset({False}): "PCIe"}.get(
        frozenset(linked), "NVLink and PCIe"
    )


def ask(nvml: Any, question: str, *arguments: object) -> Any:
    """NVML's answer; None where this NVML, the driver or the card does not know or permit it."""
    try:
        return getattr(nvml, question)(*arguments)
    except (AttributeError, nvml.NVMLError):
        return None


def text(answer: Any) -> Optional[str]:
    """A text from NVML, whose older bindings give bytes."""
    return answer.decode() if isinstance(answer, bytes) else answer


@lru_cache(maxsize=8)
def _gpu_names(visible: Optional[str]) -> tuple[str, ...]:
    nvml = _load_nvml()
    if nvml is None:
        return ()
    names = [text(nvml.nvmlDeviceGetName(gpu)) for gpu in _gpu_handles(nvml, visible)]
    return tuple(map(str, names))


def _gpu_handles(nvml: Any, visible: Optional[str]) -> list[object]:
    """Handles of the visible GPUs. As in CUDA, the first entry that names none ends the list."""
    if visible is None:
        wanted = [str(index) for index in range(nvml.nvmlDeviceGetCount())]
    else:
        wanted = [entry.strip() for entry in visible.split(",")]
    handles: list[object] = []
    for entry in wanted:
        try:
            if entry.isdigit():
                handles.append(nvml.nvmlDeviceGetHandleByIndex(int(entry)))
            else:
                handles.append(_by_uuid(nvml, entry))
        except nvml.NVMLError:
            break
    return handles


def _by_uuid(nvml: Any, entry: str) -> object:
    """The card or instance named `entry`; as in CUDA, the beginning of one card's name will do."""
    cards = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    uuids = [text(ask(nvml, "nvmlDeviceGetUUID", card)) or "" for card in cards]
    named = [card for card, uuid in zip(cards, uuids) if entry and uuid.startswith(entry)]
    return named[0] if len(named) == 1 else nvml.nvmlDeviceGetHandleByUUID(entry)


@lru_cache(maxsize=1)
def _load_nvml() -> Optional[ModuleType]:
    """NVML, initialised once per process; None on a machine without NVIDIA's driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    module: ModuleType = pynvml
    return module


def _process_name(pid: int) -> Optional[str]:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None
