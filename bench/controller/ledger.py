"""Which trials of a results folder are done, and which one another sweep is running.

Several sweeps may write into one folder. Each reads what the others appended since it last
looked, and claims a trial before it runs it: a lock on one byte of the file `.claims`, at an
offset that follows from the trial, which the system frees when the process dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional

from bench.controller.provenance import Hardware, hardware_of
from bench.identity import NOTHING, Identity, identity_of
from bench.record import Record, Status
from bench.record_check import NotARecord, record_in
from bench.record_files import RecordWriter, Skipped, record_files, require_present
from bench.rounds import slowest
from bench.trial import Trial

_IDENTIFYING = {"code", "worker", "machine"}
_ROUNDS = 1 << 12  # offsets stay below 2**62, the range that locks have


class Entry(NamedTuple):
    """What is known of a trial that has a final record."""

    status: Status
    attempt: int
    step_s: Optional[float] = None
    """Median over steps of the maximum over ranks; None where nothing was timed to the end."""
    identity: Identity = Identity(NOTHING, NOTHING, NOTHING)
    """Of which code, versions and class of machine it is."""
    hardware: Optional[Hardware] = None
    """What it ran, or was to run, on; None where the record does not say."""
    own: bool = False
    """Whether this process wrote it."""


class _Place(NamedTuple):
    """How far a file was read."""

    bytes: int
    lines: int
    within: bool = False
    """The last line was read, and its end is still to come."""


_START = _Place(0, 0)

Counts = Callable[[str, Entry], bool]
"""Whether a record of the configuration with this hash counts as a round of it."""


class Ledger:
    """The final records of one results folder. Lookups cost O(attempts), refreshing O(new bytes).

    Records for which `counts` says no are known, and settle nothing.
    """

    def __init__(self, folder: Path, counts: Counts = lambda _hash, _entry: True) -> None:
        self._folder = folder
        self._counts = counts
        self._entries: dict[tuple[str, int], list[Entry]] = {}
        self._read: dict[Path, _Place] = {}
        self._configs: dict[str, Any] = {}
        self.skipped: list[Skipped] = []
        """Whole lines that are no record; what another process is writing may follow."""
        self._writer = RecordWriter(folder)
        self._claims: Optional[int] = None
        if folder.is_dir():
            self.refresh()

    def find(self, key: tuple[str, int]) -> Optional[Entry]:
        """The last attempt of the trial `key` that counts, None when there is none."""
        counting = (one for one in self.all(key) if self._counts(key[0], one))
        return max(counting, key=lambda one: one.attempt, default=None)

    def all(self, key: tuple[str, int]) -> list[Entry]:
        """Every final record of the trial `key`, whether it counts or not."""
        return self._entries.get(key, [])

    def next_attempt(self, key: tuple[str, int]) -> int:
        """The first attempt at the trial `key` of which no record is named yet."""
        return 1 + max((one.attempt for one in self.all(key)), default=-1)

    def settles(self, trial: Trial) -> bool:
        """Whether `trial`, or a later attempt of it, has a final record that counts."""
        entry = self.find(trial.key)
        return entry is not None and entry.attempt >= trial.attempt

    def append(self, record: Record) -> None:
        """Write `record` to this process's file and remember it."""
        self._writer.append(record)
        # Another process (of an earlier boot, say) may have left a file of this name: what
        # it holds was read when the ledger was made.
        lines = self._read.get(self._writer.path, _START).lines + 1
        self._read[self._writer.path] = _Place(self._writer.path.stat().st_size, lines)
        step_s = _step_s(record.status, [samples.step_s for samples in record.samples])
        identity, hardware = _identified(record.model_dump(include=_IDENTIFYING))
        entry = Entry(record.status, record.attempt, step_s, identity, hardware, own=True)
        self._note(record.key, entry)

    def refresh(self) -> None:
        """Read what others appended since the last look."""
        for path in record_files(self._folder):
            start = self._read.get(path, _START)
            if path.stat().st_size > start.bytes:
                self._read[path] = self._take(path, start)

    @contextmanager
    def claim(self, trial: Trial) -> Iterator[bool]:
        """Hold the right to run `trial`; yields False when another process holds it.

        Raises OSError where the file of claims cannot be had, or was removed.
        """
        if self._claims is None:
            self._claims = os.open(self._folder / ".claims", os.O_RDWR | os.O_CREAT, 0o644)
        fd = self._claims
        require_present(self._folder / ".claims", fd)
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

    def _take(self, path: Path, start: _Place) -> _Place:
        """Read on from `start`; returns where what was read ends.

        A last line without an end is taken if it is a record, and otherwise looked at again: it is
        being written, or was cut off by a power cut.
        """
        taken, number, within = start
        with path.open("rb") as lines:
            lines.seek(taken)
            for line in lines:
                if not (within and line == b"\n"):
                    try:
                        self._take_record(record_in(line, self._configs))
                    except NotARecord as error:
                        if not line.endswith(b"\n"):
                            break
                        self.skipped.append(Skipped(path, number + 1, str(error), error.version))
                    number += 1
                taken += len(line)
                within = not line.endswith(b"\n")
        return _Place(taken, number, within)

    def _take_record(self, content: Mapping[str, Any]) -> None:
        status = Status(content["status"])
        step_s = _step_s(status, [samples["step_s"] for samples in content["samples"]])
        entry = Entry(status, content["attempt"], step_s, *_identified(content))
        self._note((content["config_hash"], content["round"]), entry)

    def _note(self, key: tuple[str, int], entry: Entry) -> None:
        self._entries.setdefault(key, []).append(entry)


def _identified(content: Mapping[str, Any]) -> tuple[Identity, Optional[Hardware]]:
    """What a record, parsed, is of, and the machine that it was for."""
    machine = content["machine"]
    return identity_of(content), hardware_of(machine) if machine else None


def _step_s(status: Status, per_rank: list[list[float]]) -> Optional[float]:
    """A trial's time; a trial that failed may have stopped at another step on each rank."""
    return slowest(per_rank) if status is Status.OK else None
