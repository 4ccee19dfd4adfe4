"""A process that takes the locks of pretended GPUs: python -m tests.controller.lock_holder FOLDER.

It prints what it is told, then `taken`; it releases them when it reads a line, and ends at the
next.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.controller import gpu_locks, gpus
from tests.controller.fake_nvml import FakeNvml


class InstancesNvml(FakeNvml):
    """Its third and fourth handles are instances (MIG) of the first card."""

    def __init__(self) -> None:
        super().__init__()
        self.uuids += ["MIG-ccc", "MIG-ddd"]

    def nvmlDeviceIsMigDeviceHandle(self, gpu: int):
        return type("c_uint", (), {"value": int(gpu >= 2)})

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, gpu: int) -> int:
        return 0


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    os.umask(0o077)
    gpu_locks.FOLDER = Path(sys.argv[1])
    gpus._load_nvml = InstancesNvml
    locks = gpu_locks.GpuLocks()
    assert locks.take(say)
    assert not locks.take(say)
    say("taken")
    sys.stdin.readline()
    locks.release()
    say("released")
    sys.stdin.readline()
