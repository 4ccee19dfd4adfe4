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


class VitalSigns:
    """Those of one child of this process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._looked = time.monotonic()
        self._stopped = 0

    def has_stopped(self) -> bool:
        """Whether it was found stopped (SIGSTOP) for some seconds; to be asked again and again.

        A process that computes, sleeps, waits for a disk or is traced is not stopped.
        """
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._stopped = self._stopped + 1 if self._is_stopped() else 0
        return self._stopped >= STOPPED_LOOKS

    def is_running(self) -> bool:
        """Whether it has neither ended nor is stopped at this moment."""
        return self._process.poll() is None and not self._is_stopped()

    def end(self) -> Death | None:
        """How it ended; None where it closed its files and goes on."""
        try:
            code = self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            return None
        return Death(0, -code, None) if code < 0 else Death(0, None, code)

    def _is_stopped(self) -> bool:
        try:
            return bool(psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED)
        except psutil.NoSuchProcess:
            return False
