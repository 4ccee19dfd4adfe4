"""What a sweep left behind: processes, scratch folders, shared memory, locks."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

_SHARED_MEMORY = Path("/dev/shm")
_PATIENCE_S = 10.0
"""How long what was killed last gets to go."""


class Leftovers:
    """Made before the sweep; asked after it. Others may work on the machine meanwhile."""

    def __init__(self, results: Path, scratch: Path) -> None:
        self._results, self._scratch = results, scratch
        self._memory = set(_SHARED_MEMORY.iterdir())
        self._seen: set[psutil.Process] = set()

    def look(self, controller: int) -> None:
        """Note who belongs to the sweep, so that none is overlooked that changed its variables."""
        try:
            family = psutil.Process(controller)
            self._seen |= {family, *family.children(recursive=True)}
        except psutil.NoSuchProcess:
            pass

    def found(self) -> dict[str, list[str]]:
        """What is left, by kind, once it had the time to go."""
        deadline = time.monotonic() + _PATIENCE_S
        while any((found := self._found()).values()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _found(self) -> dict[str, list[str]]:
        return {
            "processes": sorted({str(one) for one in self._processes()}),
            "scratch folders": sorted(os.listdir(self._scratch)),
            "files in shared memory": sorted(map(str, self._unused_memory())),
            "locks": self._locks(),
        }

    def _processes(self) -> Iterator[psutil.Process]:
        """Those that were seen, and all that have the sweep's scratch folder in their variables."""
        for one in {*self._seen, *psutil.process_iter()}:
            try:
                ours = one in self._seen or self._is_ours(one)
                if ours and one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                    yield one
            except psutil.Error:
                continue

    def _is_ours(self, process: psutil.Process) -> bool:
        variables = process.environ()
        return variables.get("TMPDIR", "").startswith(str(self._scratch))

    def _unused_memory(self) -> set[Path]:
        """New files that no process maps: those in use are another program's, or will go."""
        new = set(_SHARED_MEMORY.iterdir()) - self._memory
        for maps in Path("/proc").glob("[0-9]*/maps") if new else ():
            try:
                text = maps.read_text(errors="replace")
            except OSError:
                continue
            new = {path for path in new if str(path) not in text}
        return new

    def _locks(self) -> list[str]:
        """Claims that somebody holds still."""
        claims = self._results / ".claims"
        if not claims.exists():
            return []
        with claims.open("r+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return [str(claims)]
        return []
