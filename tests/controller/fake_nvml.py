"""A driver for tests: two GPUs whose answers are attributes to set.

It stands where `pynvml` would, at the driver's border. Questions that it lacks are those that an
old driver does not know.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from bench.controller import gpus

MIB = 2**20


class FakeNvml:
    """Pid 1 (which has a name everywhere) and we compute on the first GPU."""

    class NVMLError(Exception):
        pass

    nvmlMemory_v2 = 42  # noqa: N815

    def __init__(self) -> None:
        self.uuids = ["GPU-aaa", "GPU-bbb"]
        self.pids = [[1, os.getpid(), 2**30], []]
        self.sm_clock = [1980, 345]
        self.power_mw = [310_500, 70_000]
        self.temperature = [61, 30]
        self.reasons = [0x4, 0x1]
        self.used = [4 * MIB, 0]
        self.ecc_errors = [2, 0]
        self.cuda = 12040

    def nvmlSystemGetDriverVersion(self) -> str:
        return "550.54.15"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index >= len(self.uuids):
            raise self.NVMLError
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        if uuid not in self.uuids:
            raise self.NVMLError
        return self.uuids.index(uuid)

    def nvmlDeviceGetUUID(self, gpu: int) -> str:
        return self.uuids[gpu]

    def nvmlDeviceGetName(self, gpu: int) -> str:
        return f"gpu{gpu}"

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in self.pids[gpu]]

    def nvmlDeviceGetClockInfo(self, gpu: int, kind: int) -> int:
        return {1: self.sm_clock[gpu], 2: 2619}[kind]

    def nvmlDeviceGetMaxClockInfo(self, gpu: int, kind: int) -> int:
        assert kind == 1
        return 1980

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        return self.power_mw[gpu]

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: int) -> int:
        return 700_000

    def nvmlDeviceGetTemperature(self, gpu: int, sensor: int) -> int:
        return self.temperature[gpu]

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: int) -> int:
        return self.reasons[gpu]

    def nvmlDeviceGetMemoryInfo(self, gpu: int, version: Any = None) -> SimpleNamespace:
        assert version == 42  # the first version counts what the driver keeps for itself
        return SimpleNamespace(used=self.used[gpu], total=81_559 * MIB)

    def nvmlDeviceGetEccMode(self, gpu: int) -> list[int]:
        return [1, 1]

    def nvmlDeviceGetTotalEccErrors(self, gpu: int, kind: int, since: int) -> int:
        assert (kind, since) == (1, 0)
        return self.ecc_errors[gpu]

    def nvmlDeviceGetMigMode(self, gpu: int) -> list[int]:
        return [0, 0]

    def nvmlDeviceGetComputeMode(self, gpu: int) -> int:
        return 0


class OldNvml(FakeNvml):
    """A card and driver that know next to nothing: what they are asked raises or is absent."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlMemory_v2"):
            raise AttributeError(name)  # not in bindings of before driver 535
        if name.startswith("nvmlDeviceGet") and name not in (
            "nvmlDeviceGetCount",
            "nvmlDeviceGetHandleByIndex",
            "nvmlDeviceGetName",
        ):
            return self._unsupported
        return super().__getattribute__(name)

    def _unsupported(self, *arguments: object) -> None:
        raise self.NVMLError("Not Supported")


@contextmanager
def driver(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml) -> Iterator[FakeNvml]:
    """`nvml` in place of this machine's own driver."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "_load_nvml", lambda: nvml)
    gpus._gpu_names.cache_clear()
    gpus.driver_version.cache_clear()
    yield nvml
    gpus._gpu_names.cache_clear()
    gpus.driver_version.cache_clear()
