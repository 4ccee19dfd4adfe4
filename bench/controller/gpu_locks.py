"""Sweeps side by side on a host never share a GPU: one lock per GPU, held for a whole trial.

Whoever runs ranks on GPUs locks all that `CUDA_VISIBLE_DEVICES` leaves visible, so sweeps that are
to run at the same time are given different ones. A lock is a file that all users of the host
share; the kernel frees it when its holder dies. The files are always in /tmp: batch systems give
every job a TMPDIR of its own. Containers with a /tmp of their own do not see one another's locks.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench.controller import gpus
from bench.controller.locks import holder_pid, is_still

FOLDER = Path("/tmp")


class GpuLocks:
    """The locks of this process's trial on the visible GPUs."""

    def __init__(self) -> None:
        self._files: list[int] = []

    def take(self, note: Callable[[str], None]) -> bool:
        """Lock every visible GPU, waiting where another process has one; `note` is told for whom.

        Always in the order of their names, so that two who wait never wait for each other.
        Returns False when this object holds them already. Raises OSError where no lock file can
        be made, and KeyboardInterrupt while it waits; `release` frees what was taken until then.
        """
        if self._files:
            return False
        start, waited = time.monotonic(), False
        for name, kind in sorted(_names().items()):
            waited |= self._lock(name, kind, note)
        if waited:
            note(f"has its GPUs after {time.monotonic() - start:.0f} s")
        return True

    def release(self) -> None:
        """Free the locks."""
        while self._files:
            os.close(self._files.pop())

    def _lock(self, name: str, kind: int, note: Callable[[str], None]) -> bool:
        """Take one lock; returns whether it had to be waited for."""
        waited = False
        while True:
            file = _open(FOLDER / f"spbench-{name}.lock")
            self._files.append(file)
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    note(f"waiting for {name}, held by {_holder(file)}")
                waited = True
                fcntl.flock(file, kind)  # in a queue: whoever polls would come too late
            if is_still(FOLDER / f"spbench-{name}.lock", file):
                with suppress(PermissionError):
                    os.utime(file)  # what cleans /tmp goes by age
                return waited
            os.close(self._files.pop())


def _names() -> dict[str, int]:
    """Names of the locks, and of which kind: exclusive, but shared of a card used in part."""
    nvml, handles = gpus.visible_handles()
    names: dict[str, int] = {}
    for index, gpu in enumerate(handles):
        card = gpus.parent_of(nvml, gpu)
        if card is not None:  # an instance (MIG): others may use the card's other instances
            names.setdefault(_name(nvml, card, index), fcntl.LOCK_SH)
        names[_name(nvml, gpu, index)] = fcntl.LOCK_EX
    return names


def _name(nvml: object, gpu: object, index: int) -> str:
    return gpus.text(gpus.ask(nvml, "nvmlDeviceGetUUID", gpu)) or f"GPU-{index}"


def _open(path: Path) -> int:
    """The lock file, made when it is not there, such that every user may lock it.

    Opened without O_CREAT where it is there: the kernel may refuse that for another user's file
    in /tmp (fs.protected_regular).
    """
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with suppress(FileExistsError):
            file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444)
            os.fchmod(file, 0o444)  # whatever the umask says
            return file


def _holder(file: int) -> str:
    pid = holder_pid(file)
    return "another process" if pid is None else f"process {pid}"
