"""Rows that a rank notes on its way: on disk at once, and never more than a record can carry.

Of each rank the first and the last `KEPT_BYTES` are kept. The first lie in the rank's rows file;
what follows is written into a second file beside it, which becomes the third when it is full, in
place of the one before. So the rows outlive a rank that is killed at any moment.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import List, NamedTuple, Optional

KEPT_BYTES = 2 * 10**6
"""Of a rank's first rows, and of its last."""
_LEFT_OUT = "rows_left_out"


class Rows(NamedTuple):
    """What a rank noted."""

    lines: List[bytes]
    """Whole lines of JSON, in the order in which they were noted."""
    left_out: int
    """Lines between the first and the last that were not kept."""


class RowsWriter:
    """Notes the rows of one rank in `path` and beside it."""

    def __init__(self, path: Path, kept_bytes: int = KEPT_BYTES) -> None:
        self._path, self._kept = path, kept_bytes
        self._file = path
        self._bytes = self._lines = 0  # of the file in use
        self._lines_before = 0  # of the full one beside it
        self._left_out = 0

    def append(self, line: bytes) -> None:
        """Note `line`, JSON without its end; one that alone is more than is kept is left out."""
        if len(line) >= self._kept:
            self._left_out += 1
            line = self._note()
        if self._bytes + len(line) >= self._kept:
            self._next_file()
        self._write(line)
        self._lines += 1

    def _next_file(self) -> None:
        tail = _tail(self._path)
        if self._file == tail:
            self._left_out += self._lines_before
            self._lines_before = self._lines
            tail.replace(_tail_before(self._path))
        self._file, self._bytes, self._lines = tail, 0, 0
        if self._left_out:
            self._write(self._note())

    def _note(self) -> bytes:
        return json.dumps({_LEFT_OUT: self._left_out}).encode()

    def _write(self, line: bytes) -> None:
        with self._file.open("ab") as file:
            self._bytes += file.write(line + b"\n")


def read_rows(path: Path, kept_bytes: int = KEPT_BYTES) -> Rows:
    """What `RowsWriter` noted in `path`, however its process ended; nothing where it noted none.

    Raises OSError where something else lies there, which might never end.
    """
    first = _whole_lines(path)
    last = _whole_lines(_tail_before(path)) + _whole_lines(_tail(path))
    noted = max((_left_out(line) or 0 for line in first + last), default=0)
    first, last = ([one for one in part if _left_out(one) is None] for part in (first, last))
    kept = _last_of(last, kept_bytes)
    return Rows(first + kept, noted + len(last) - len(kept))


def _last_of(lines: List[bytes], kept_bytes: int) -> List[bytes]:
    """As many of the last of `lines` as have room in `kept_bytes`."""
    for number, line in enumerate(reversed(lines)):
        kept_bytes -= len(line) + 1
        if kept_bytes < 0:
            return lines[len(lines) - number :]
    return lines


def _whole_lines(path: Path) -> List[bytes]:
    """A rank that is killed may leave half a line."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(f"{path} is no regular file")
        whole = path.read_bytes().rpartition(b"\n")[0]
    except FileNotFoundError:
        return []
    return whole.split(b"\n") if whole else []


def _left_out(line: bytes) -> Optional[int]:
    """How many lines had been left out when the note `line` was written; None for a row."""
    if not line.startswith(b'{"' + _LEFT_OUT.encode()):
        return None
    try:
        return int(json.loads(line)[_LEFT_OUT])
    except (ValueError, TypeError, KeyError):
        return None


def _tail(path: Path) -> Path:
    return path.with_suffix(".last")


def _tail_before(path: Path) -> Path:
    return path.with_suffix(".before")
