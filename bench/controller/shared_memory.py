"""The shared memory that a trial's ranks leave: files in `/dev/shm`, which outlive them.

NCCL's segments: src/transport/shm.cc, src/proxy.cc and src/os/linux.cc of NCCL. Each is a file
`/dev/shm/nccl-XXXXXX` that `mkstemp` made (for its owner alone) and that the ranks which share it
map; whoever is the last to open it, or to close it, removes it. Killed ranks do not.

Other programs of the user keep files there, too, data sets even. A file counts as the ranks' own
where a rank noted that it made it (`bench.worker.shared_memory`), where a rank that was still
alive at the end mapped it or had it open, or where torch or multiprocessing named it by a rank's
pid: another program's `part-4711` may be one's pid by chance.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

from bench.record_files import shared_memory_note

FOLDER = Path("/dev/shm")
_NAMED_BY_PID = re.compile(r"(?:torch_|pym-)(\d+)[_-]")
"""aten/src/ATen/MapAllocator.cpp of torch; multiprocessing/heap.py of Python."""
_FILE_CLOCK_S = 0.01
"""How far the clock that stamps files may be behind: a tick of the kernel."""


def remove_deepspeed_buffers(store_port: int) -> None:
    """Buffers of DeepSpeed's shared-memory op, whose names carry the port of the trial's store."""
    for left in FOLDER.glob(f"deepspeed_allreduce_buffer_*_{store_port}_*"):
        left.unlink(missing_ok=True)


def names() -> set[Path]:
    """All files that are there now."""
    return set(FOLDER.iterdir())


def used_by(pids: Sequence[int]) -> set[Path]:
    """Files in shared memory that the processes `pids`, and what they started, use now."""
    return {path for pid in pids for process in _family(pid) for path in _used(process)}


def noted(scratch: Path, pids: Sequence[int]) -> set[Path]:
    """Files in shared memory that ranks, now ended, made: by their notes, or by their names."""
    found = set()
    for rank in range(len(pids)):
        with contextlib.suppress(FileNotFoundError):
            lines = shared_memory_note(scratch, rank).read_bytes().split(b"\n")
            found |= {Path(os.fsdecode(line)) for line in lines if line}
    found |= {path for path in names() if _maker(path.name) in pids}
    return {path for path in found if path.parent == FOLDER}


def _maker(name: str) -> int | None:
    """The pid in a name of torch's or of multiprocessing's."""
    match = _NAMED_BY_PID.match(name)
    return int(match[1]) if match else None


def remove_left(paths: Iterable[Path], since: float) -> list[str]:
    """Remove those of `paths` that nobody uses any longer; what they were, for the record.

    Only files of this user that changed at `since` [s] or later.
    """
    removed = _remove_unused(sorted(paths), since)
    return [f"{path} ({size:,} bytes)" for path, size in removed]


def remove_nccl_segments(since: float, folder: Path = FOLDER) -> list[Path]:
    """NCCL's shared memory that killed ranks left; returns what was removed.

    Only files of this user that were made at `since` [s] or later, by the trial or while it ran,
    and that no living process maps: another program's NCCL may run beside us.
    """
    return [path for path, _ in _remove_unused(folder.glob("nccl-*"), since)]


def _remove_unused(paths: Iterable[Path], since: float) -> list[tuple[Path, int]]:
    """Remove those of `paths` that are ours, of `since` or later, and used by nobody.

    Returns each with its bytes.
    """
    made = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # its owner just removed it
            status = path.stat(follow_symlinks=False)
            regular, ours = stat.S_ISREG(status.st_mode), status.st_uid == os.geteuid()
            if regular and ours and status.st_mtime > since - _FILE_CLOCK_S:
                made[path] = status
    used = _mapped(made) if made else set()
    if used is None:
        return []
    left = [(path, status.st_size) for path, status in made.items() if path not in used]
    for path, _ in left:
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


def _family(pid: int) -> Iterator[Path]:
    """The folders in /proc of a process and of all that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            yield Path("/proc") / str(process.pid)


def _used(process: Path) -> Iterator[Path]:
    """What a process maps or has open of shared memory; nothing of one that is gone."""
    folder = str(FOLDER) + "/"
    with contextlib.suppress(OSError):
        for line in (process / "maps").read_text(errors="surrogateescape").splitlines():
            *_, name = line.split(maxsplit=5)
            if name.startswith(folder):
                yield Path(name)
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed
                if (name := str(descriptor.readlink())).startswith(folder):
                    yield Path(name)
