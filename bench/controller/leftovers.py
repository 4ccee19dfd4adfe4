"""What ranks start and what they leave behind: processes, build locks, shared memory."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of what it started: a rank whose compiler is at work is not idle.

    0 for one that is gone.
    """
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(map(_own_cpu_seconds, family))


def _own_cpu_seconds(process: psutil.Process) -> float:
    try:
        return float(sum(process.cpu_times()[:2]))
    except psutil.NoSuchProcess:
        return 0.0


def remove_shared_memory(store_port: int) -> None:
    """Buffers of DeepSpeed's shared-memory op, whose names carry the port of the trial's store."""
    for left in Path("/dev/shm").glob(f"deepspeed_allreduce_buffer_*_{store_port}_*"):
        left.unlink(missing_ok=True)


def remove_build_locks(extensions: Path, since: float) -> None:
    """Torch's build locks in `extensions` of a trial that began at `since` [s] and failed.

    A rank that is ended while it compiles leaves one, and every later rank would wait for it.
    """
    for lock in extensions.rglob("lock"):
        with contextlib.suppress(FileNotFoundError):
            if lock.stat().st_mtime >= since:
                lock.unlink()
