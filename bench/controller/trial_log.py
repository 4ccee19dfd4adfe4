"""The log of a trial: what its ranks print, of which the first and the last 10 MB are kept.

Ranks append to the file themselves, so that nothing stands between them and the disk. While they
run, `trim` gives back what lies between (a hole in the file); `finish` then closes the gap.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

KEPT_BYTES = 10 * 10**6
"""Of the beginning, and of the end."""
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # fallocate(2)
_SLACK_BYTES = 1 << 20
"""What is not worth a hole."""


class TrialLog:
    """The log at `path`, to which one launch of ranks appends."""

    def __init__(self, path: Path, kept_bytes: int = KEPT_BYTES) -> None:
        self.path = path
        self._kept = kept_bytes
        self._start = path.stat().st_size if path.exists() else 0
        self.left_out = 0
        """Bytes that `finish` left out."""

    def trim(self) -> None:
        """Free the disk of what will be left out; where files have no holes, `finish` does."""
        length = self._size() - 2 * self._kept
        if length > _SLACK_BYTES:
            _punch(self.path, self._kept, length)

    def finish(self) -> None:
        """Leave out what is in the middle, and say so there. No rank writes any longer."""
        size = self._size()
        if size <= 2 * self._kept + _SLACK_BYTES:
            return
        self.left_out = size - 2 * self._kept
        tail = size - self._kept
        note = f"\n… spbench: {self.left_out:,} bytes of output are left out here …\n".encode()
        with self.path.open("r+b") as file:
            file.seek(tail)
            last = file.read()
            file.seek(self._kept)
            file.write(note + last)
            file.truncate()
        if self._start > self._kept:
            self._start = self._kept + len(note) + max(0, self._start - tail)

    def output(self) -> str:
        """What this launch wrote, as far as it is kept; to be asked for after `finish`."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            file.seek(self._start)
            return file.read().decode(errors="replace")

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0


def _punch(path: Path, offset: int, length: int) -> None:
    """Free `length` bytes of a file from `offset` on; nothing where its disk cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "fallocate64"):
        return
    fd = os.open(path, os.O_WRONLY)
    try:
        arguments = (ctypes.c_int64(offset), ctypes.c_int64(length))
        libc.fallocate64(fd, _KEEP_SIZE | _PUNCH_HOLE, *arguments)
    finally:
        os.close(fd)
