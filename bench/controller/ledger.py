"""Which trials of a results folder are done, and which one another sweep is running.

Several sweeps may write into one folder. Each reads what the others appended since it last
looked, and claims a trial before it runs it: a lock on one byte of the file `.claims`, at an
offset that follows from the trial, which the system frees when the process dies.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Optional

from bench.record import Record, Status
from bench.record_files import RecordWriter, is_readable, record_files
from bench.rounds import slowest
from bench.trial import Trial

_ROUNDS = 1 << 12  # offsets stay below 2**62, the range that locks have


class Entry(NamedTuple):
    """What is known of a trial that has a final record."""

    status: Status
    attempt: int
    step_s: Optional[float] = None
    """Median over steps of the maximum over ranks; None where nothing was timed to the end."""


class Ledger:
    """The final records of one results folder. Lookups cost O(1), refreshing O(new bytes)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[tuple[str, int], Entry] = {}
        self._read: dict[Path, int] = {}
        self._writer = RecordWriter(folder)
        self._claims: Optional[int] = None
        if folder.is_dir():
            self.refresh()

    def find(self, key: tuple[str, int]) -> Optional[Entry]:
        """The last attempt of the trial `key`, None when it has no final record."""
        return self._entries.get(key)

    def settles(self, trial: Trial) -> bool:
        """Whether `trial`, or a later attempt of it, has a final record."""
        entry = self._entries.get(trial.key)
        return entry is not None and entry.attempt >= trial.attempt

    def append(self, record: Record) -> None:
        """Write `record` to this process's file and remember it."""
        self._writer.append(record)
        # Another process (of an earlier boot, say) may have left a file of this name: what
        # it holds was read when the ledger was made.
        self._read[self._writer.path] = self._writer.path.stat().st_size
        step_s = _step_s(record.status, [samples.step_s for samples in record.samples])
        self._note(record.key, Entry(record.status, record.attempt, step_s))

    def refresh(self) -> None:
        """Read what others appended since the last look."""
        for path in record_files(self._folder):
            start = self._read.get(path, 0)
            if path.stat().st_size > start:
                self._read[path] = start + self._take(path, start)

    @contextmanager
    def claim(self, trial: Trial) -> Iterator[bool]:
        """Hold the right to run `trial`; yields False when another process holds it."""
        if self._claims is None:
            self._claims = os.open(self._folder / ".claims", os.O_RDWR | os.O_CREAT, 0o644)
        fd = self._claims
        config_hash, round_ = trial.key
        offset = int(config_hash[:12], 16) * _ROUNDS + round_ % _ROUNDS
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except (BlockingIOError, PermissionError):
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)

    def close(self) -> None:
        """Close the files; the ledger can still be asked."""
        self._writer.close()
        if self._claims is not None:
            os.close(self._claims)
            self._claims = None

    def _take(self, path: Path, start: int) -> int:
        """Read whole lines from `start` on; returns their bytes."""
        taken = 0
        with path.open("rb") as lines:
            lines.seek(start)
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # still being written, or cut off by a power cut
                taken += len(line)
                self._take_line(line)
        return taken

    def _take_line(self, line: bytes) -> None:
        try:
            content = json.loads(line)
            if not is_readable(content["schema_version"]):
                return
            key = (content["config_hash"], content["round"])
            status = Status(content["status"])
            step_s = _step_s(status, [samples["step_s"] for samples in content["samples"]])
            self._note(key, Entry(status, content["attempt"], step_s))
        except (ValueError, KeyError, TypeError):
            return  # no record: the readers of the folder report such lines

    def _note(self, key: tuple[str, int], entry: Entry) -> None:
        known = self._entries.get(key)
        if known is None or entry.attempt > known.attempt:
            self._entries[key] = entry


def _step_s(status: Status, per_rank: list[list[float]]) -> Optional[float]:
    """A trial's time; a trial that failed may have stopped at another step on each rank."""
    return slowest(per_rank) if status is Status.OK else None
