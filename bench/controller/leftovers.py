"""What ranks start and what they leave behind: processes and build locks.

Shared memory is in `bench.controller.shared_memory`.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

_END_S = 3.0
"""How long the kernel gets to end killed processes."""


def cpu_seconds(pid: int, of_itself: bool = True) -> float:
    """CPU time of a process and of what it started: a rank whose compiler is at work is not idle.

    Without `of_itself` only of what it started. 0 for one that is gone.
    """
    try:
        family = psutil.Process(pid).children(recursive=True)
        family += [psutil.Process(pid)] if of_itself else []
    except psutil.NoSuchProcess:
        return 0.0
    return sum(map(_own_cpu_seconds, family))


def _own_cpu_seconds(process: psutil.Process) -> float:
    try:
        return float(sum(process.cpu_times()[:2]))
    except psutil.NoSuchProcess:
        return 0.0


def await_end(pids: list[int]) -> None:
    """Wait until processes that were just killed are gone, at most `_END_S`."""
    deadline = time.monotonic() + _END_S
    while any(map(_lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def remove_build_locks(extensions: Path, since: float) -> None:
    """Torch's build locks in `extensions` of a trial that began at `since` [s] and failed.

    A rank that is ended while it compiles leaves one, and every later rank would wait for it.
    """
    for lock in extensions.rglob("lock"):
        with contextlib.suppress(FileNotFoundError):
            if lock.stat().st_mtime >= since:
                lock.unlink()
