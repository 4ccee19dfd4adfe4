"""The files of a results folder that hold its records.

`records-<host>-<pid>.jsonl`: one writer per file, one line per record.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from bench.plain import plain
from bench.record import SCHEMA_VERSION, Record


class RecordsError(Exception):
    """A results folder cannot be used; the message says what to do."""


class RecordWriter:
    """Appends records to a file of its own: one write and one fsync per record."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"records-{socket.gethostname()}-{os.getpid()}.jsonl"
        self._fd: Optional[int] = None

    def append(self, record: Record) -> None:
        """Write `record` so that a power cut after this call cannot lose it.

        Raises OSError, with the file's name, where nothing was written: also where the file was
        removed meanwhile. Of a line that did not fit, nothing is left.
        """
        line = _json(record) + b"\n"
        try:
            fd = self._open()
            start = os.fstat(fd).st_size
            try:
                _write(fd, line)
                require_present(self.path, fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, start)
                raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _open(self) -> int:
        if self._fd is None:
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._fd).st_size
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                # A process of the same number was cut off in mid-line, before a restart say.
                _write(self._fd, b"\n")
        return self._fd

    def close(self) -> None:
        """Close the file; harmless when nothing was written."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _json(record: Record) -> bytes:
    """`record` on one line; texts that were no text, a process's name say, are escaped."""
    try:
        return record.model_dump_json().encode()
    except ValueError:  # pydantic's, for lone surrogates
        return json.dumps(plain(record.model_dump())).encode()


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.fsync(fd)


def require_present(path: Path, fd: int) -> None:
    """Raise FileNotFoundError unless `path` is the open file `fd`: it may have been removed."""
    try:
        present = os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        present = False
    if not present:
        raise FileNotFoundError(errno.ENOENT, "it was removed", str(path))


def first_loss_file(folder: Path) -> Path:
    """JSON with the `loss` of a forward pass in float64, in the reference folder `folder`."""
    return folder / "first_loss.json"


def rows_file(scratch: Path, rank: int) -> Path:
    """Where a rank notes the rows of its record's `details`, a line of JSON each."""
    return scratch / f"rows-{rank}.jsonl"


def shared_memory_note(scratch: Path, rank: int) -> Path:
    """Where a rank notes the files that it makes in shared memory, a line each."""
    return scratch / f"shared-memory-{rank}"


def flight_recorder_file(scratch: Path, rank: int) -> Path:
    """Where torch's flight recorder writes what the collectives of a rank were doing."""
    return scratch / f"flight-{rank}"


def within(folder: Path, name: object) -> Path:
    """The file of a results folder that a record names: a log, a trace, a sketch.

    Raises RecordsError for a name that leads out of the folder: records may come from anybody.
    """
    path = folder / str(name)
    if not isinstance(name, str) or "\0" in name or not _inside(folder, path):
        raise RecordsError(f"{name!r} is no file of the folder {folder}: it is not opened")
    return path


def _inside(folder: Path, path: Path) -> bool:
    try:
        path.exists()
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a name too long, a loop of links
        return False


class RawRecord(NamedTuple):
    """A record and its file: parsed, and checked as far as readers need it."""

    path: Path
    content: Dict[str, Any]


class Skipped(NamedTuple):
    """A line that is no record of a version that this spbench reads."""

    path: Path
    line: int
    reason: str
    version: Any = None
    """Schema version that the line names, if it names one."""

    @property
    def text(self) -> str:
        """`records-a-1.jsonl, line 3: truncated or not a record`."""
        return f"{self.path.name}, line {self.line}: {self.reason}"


def record_files(folder: Path) -> List[Path]:
    """The records files of a results folder, in name order."""
    return sorted(folder.glob("records-*.jsonl"))


def read_records(folder: Path, skipped: Optional[List[Skipped]] = None) -> Iterator[RawRecord]:
    """All records of a results folder, file by file, in the order they were written.

    A line that is none (`bench.record_check`) is appended to `skipped` and passed over.
    """
    # The parser is not in the environments that we measure, whose ranks import this module.
    from bench.record_check import NotARecord, record_in

    configs: Dict[str, Any] = {}
    for path in record_files(folder):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield RawRecord(path, record_in(line, configs))
                except NotARecord as error:
                    if skipped is not None:
                        skipped.append(Skipped(path, number, str(error), error.version))


def refuse_newer_schema(folder: Path, skipped: Sequence[Skipped]) -> None:
    """Raise `RecordsError` when a newer spbench wrote one of the lines `skipped` into `folder`."""
    for line in skipped:
        if type(line.version) is int and line.version > SCHEMA_VERSION:
            raise RecordsError(
                f"results={folder} holds records of schema version {line.version} "
                f"({line.path.name}, line {line.line}); this spbench writes version "
                f"{SCHEMA_VERSION}: choose another folder or upgrade spbench"
            )


def not_counted(folder: Path, skipped: Sequence[Skipped]) -> List[str]:
    """What a sweep says of the lines of its folder that are no record: one line, if there are."""
    if not skipped:
        return []
    if len(skipped) == 1:
        return [f"not counted: {folder}/{skipped[0].text}; its trial runs again"]
    return [
        f"not counted: {len(skipped):,} lines of {folder}, the first is {skipped[0].text}; "
        "their trials run again"
    ]
