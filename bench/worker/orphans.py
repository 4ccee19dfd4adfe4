"""Processes that a rank started and left behind: a compiler's, say, in a session of their own.

Killing a rank's process group does not reach them. The server has them handed to it when their
parents die (`adopt`), and ends them with the trial (`end`).
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import Iterator, Set

_PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """From now on, descendants of this process whose parent dies become its children."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end(known: Set[int]) -> None:
    """Kill and reap all children of this process that are not `known`, and what they leave."""
    while found := set(_children(os.getpid())) - known:
        for pid in found:
            os.kill(pid, signal.SIGKILL)  # a zombie takes it, too
        for pid in found:
            os.waitpid(pid, 0)


def _children(parent: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[1]) == parent:
            yield int(stat.parent.name)
