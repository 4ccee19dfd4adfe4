"""Locks (flock) that processes share, and waiting for one without leaving people in the dark.

The kernel frees a lock when its holder dies.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Optional

import psutil

SILENT_S = 1.0
"""How long a wait goes without a word."""
AGAIN_S = 60.0
"""How often it is told again."""
_POLL_S = 0.05


def say(line: str) -> None:
    """Tell whoever waits, unless a caller has a display of its own: a line on standard error."""
    print(line, file=sys.stderr, flush=True)


def wait_for(file: int, kind: int, tell: Callable[[str], None]) -> None:
    """Lock the open `file`, `kind` being exclusive or shared (`fcntl.LOCK_EX`, `LOCK_SH`).

    Where that takes longer than `SILENT_S`, `tell` is told who has it, and again each minute.
    """
    due = time.monotonic() + SILENT_S
    while not try_lock(file, kind):
        if time.monotonic() >= due:
            tell(holder(file))
            due = time.monotonic() + AGAIN_S
        time.sleep(_POLL_S)


def try_lock(file: int, kind: int) -> bool:
    """Lock the open `file` if nobody is in the way."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def held(path: Path, tell: Optional[Callable[[str], None]]) -> Iterator[bool]:
    """Have the lock file `path`, made if need be, alone; its time is that from which on.

    Waits for it as `wait_for` does. Without `tell` it does not wait: False where another has it.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if tell is not None:
                wait_for(file, fcntl.LOCK_EX, tell)
            elif not try_lock(file, fcntl.LOCK_EX):
                yield False
                return
            if is_still(path, file):
                os.utime(file)
                yield True
                return
        finally:
            os.close(file)


def is_still(path: Path, file: int) -> bool:
    """Whether `path` is the open `file`: somebody may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def holder(file: int) -> str:
    """`process 123 since 12:34:56`: who has locked the open `file`, as far as can be known."""
    pid = holder_pid(file)
    if pid is None:
        return "another process"
    since = os.fstat(file).st_mtime
    with suppress(psutil.NoSuchProcess):
        since = max(since, psutil.Process(pid).create_time())  # a file that is older says nothing
    return f"process {pid} since {datetime.datetime.fromtimestamp(since):%H:%M:%S}"


def holder_pid(file: int) -> Optional[int]:
    """Which process has locked the open `file`, as the kernel's list says (proc(5), /proc/locks).

    None where it is of another machine or container.
    """
    inode = str(os.fstat(file).st_ino)
    found = None
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
                found = int(fields[4])
    return found if found is not None and found > 0 else None
