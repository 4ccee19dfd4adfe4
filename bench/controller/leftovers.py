"""What ranks start and what they leave behind: processes, build locks, shared memory.

NCCL's segments: src/transport/shm.cc, src/proxy.cc and src/os/linux.cc of NCCL. Each is a file
`/dev/shm/nccl-XXXXXX` that `mkstemp` made (for its owner alone) and that the ranks which share it
map; whoever is the last to open it, or to close it, removes it. Killed ranks do not.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import psutil

_SHARED_MEMORY = Path("/dev/shm")
_FILE_CLOCK_S = 0.01
"""How far the clock that stamps files may be behind: a tick of the kernel."""


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


def remove_shared_memory(store_port: int) -> None:
    """Buffers of DeepSpeed's shared-memory op, whose names carry the port of the trial's store."""
    for left in _SHARED_MEMORY.glob(f"deepspeed_allreduce_buffer_*_{store_port}_*"):
        left.unlink(missing_ok=True)


def remove_build_locks(extensions: Path, since: float) -> None:
    """Torch's build locks in `extensions` of a trial that began at `since` [s] and failed.

    A rank that is ended while it compiles leaves one, and every later rank would wait for it.
    """
    for lock in extensions.rglob("lock"):
        with contextlib.suppress(FileNotFoundError):
            if lock.stat().st_mtime >= since:
                lock.unlink()


def remove_nccl_segments(since: float, folder: Path = _SHARED_MEMORY) -> list[Path]:
    """NCCL's shared memory that killed ranks left; returns what was removed.

    Only files of this user that were made at `since` [s] or later, by the trial or while it ran,
    and that no living process maps: another program's NCCL may run beside us.
    """
    made = {}
    for path in folder.glob("nccl-*"):
        with contextlib.suppress(FileNotFoundError):  # its owner just removed it
            status = path.stat(follow_symlinks=False)
            regular, ours = stat.S_ISREG(status.st_mode), status.st_uid == os.geteuid()
            if regular and ours and status.st_mtime > since - _FILE_CLOCK_S:
                made[path] = status
    used = _mapped(made) if made else set()
    if used is None:
        return []
    left = [path for path in made if path not in used]
    for path in left:
        path.unlink(missing_ok=True)
    return left


def _mapped(files: dict[Path, os.stat_result]) -> set[Path] | None:
    """Which of `files`, all of this user, a living process maps; None where we may not know.

    Other users' processes cannot have opened them; root's could, and run no NCCL of ours.
    """
    marks = {path: _mark(status) for path, status in files.items()}
    found: set[Path] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "maps").read_text(errors="replace")
        except PermissionError:  # a container's first process, or one that may not be traced
            if _may_map(process):
                return None
            continue
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        found |= {path for path, mark in marks.items() if mark in text}
    return found


def _mark(status: os.stat_result) -> str:
    """Device and inode of a file as proc(5) writes them in `maps`: a path may differ there."""
    return f" {os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x} {status.st_ino} "


def _may_map(process: Path) -> bool:
    """Whether a process whose map is hidden from us may be one of this user's that runs NCCL.

    Not one with capabilities that we lack (the first process of a container), nor one without any
    shared memory. Its user is not the owner of its folder, which is root where tracing is denied.
    """
    try:
        its, ours = _status(process), _status(Path("/proc/self"))
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended
    more = int(its["CapPrm"], 16) & ~int(ours["CapPrm"], 16)
    of_this_user = int(its["Uid"].split()[1]) == os.geteuid()
    return of_this_user and not more and its.get("RssShmem", "").split()[:1] != ["0"]


def _status(process: Path) -> dict[str, str]:
    lines = (process / "status").read_text().splitlines()
    return dict(line.partition(":")[::2] for line in lines)
