"""Whether a process that should answer still runs, and how it ended."""

from __future__ import annotations

import subprocess
import time

import psutil

from bench.controller.deaths import Death

LOOK_S = 1.0
"""How often the state of a process that is silent is looked at."""
STOPPED_LOOKS = 5
"""How many looks in a row must find it stopped. Looks are counted, and not the time: where a batch
system stops a whole job, the controller with it, all go on together."""
_REAP_S = 2.0
"""How long the kernel gets to end a process whose files it has closed already."""


class Stops:
    """Whether the process `pid` is stopped (SIGSTOP).

    One that computes, sleeps, waits for a disk, is traced or has ended is not stopped.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._looked = time.monotonic()
        self._stopped = 0

    def for_long(self) -> bool:
        """Whether it was found stopped for some seconds; to be asked again and again."""
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._stopped = self._stopped + 1 if self.now() else 0
        return self._stopped >= STOPPED_LOOKS

    def now(self) -> bool:
        """Whether it is at this moment."""
        try:
            return bool(psutil.Process(self._pid).status() == psutil.STATUS_STOPPED)
        except psutil.NoSuchProcess:
            return False


class VitalSigns:
    """Those of one child of this process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._stops = Stops(process.pid)

    def has_stopped(self) -> bool:
        """Whether it was found stopped for some seconds; to be asked again and again."""
        return self._stops.for_long()

    def is_running(self) -> bool:
        """Whether it has neither ended nor is stopped at this moment."""
        return self._process.poll() is None and not self._stops.now()

    def end(self) -> Death | None:
        """How it ended; None where it closed its files and goes on."""
        try:
            code = self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            return None
        return Death(0, -code, None) if code < 0 else Death(0, None, code)
