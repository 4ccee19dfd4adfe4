"""The processes of the trial in flight, as the server that forked them sees them.

Their reports are relayed as text: whether a line is a report is for the controller to say. What
ends a rank is the end of its process. Its pipe may stay open long after, in the hands of something
that the rank started, or be closed long before.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import termios
from dataclasses import dataclass, field
from typing import Callable, List, Optional

from bench.lines import MOST_REPORT_BYTES, Lines

POLL_S = 0.05
"""How often the server looks after processes whose end the kernel announces to nobody."""


@dataclass
class Child:
    """One forked process: a rank, or the maker of a reference."""

    index: int
    pid: int
    pipe: Optional[int]
    """What it reports through; None once that is closed."""
    end: Optional[int]
    """A descriptor that becomes readable when the process ends (pidfd); None: Linux before 5.3."""
    received: int = 0
    """Bytes that it reported."""
    status: Optional[int] = None
    """As `waitpid` gives it; None while it runs."""
    lines: Lines = field(default_factory=lambda: Lines(MOST_REPORT_BYTES))

    @classmethod
    def of(cls, index: int, pid: int, pipe: int) -> Child:
        """The process `pid` just forked, with the reading end of its pipe."""
        os.set_blocking(pipe, False)
        return cls(index, pid, pipe, _pidfd(pid))


class Children:
    """All processes of a trial. `answer` sends a line to the host."""

    def __init__(
        self,
        processes: List[Child],
        selector: selectors.BaseSelector,
        answer: Callable[..., None],
    ) -> None:
        self._all, self._selector, self._answer = processes, selector, answer
        for child in processes:
            for fd in (child.pipe, child.end):
                if fd is not None:
                    selector.register(fd, selectors.EVENT_READ, child)

    @property
    def pids(self) -> List[int]:
        """Of all, by index."""
        return [child.pid for child in self._all]

    def alive(self) -> List[Child]:
        """Those whose end has not been seen."""
        return [child for child in self._all if child.status is None]

    def received(self, index: int) -> int:
        """Bytes that process `index` reported so far."""
        return self._all[index].received

    def patience(self) -> Optional[float]:
        """How long to wait for something readable [s]; None: for ever."""
        return POLL_S if any(child.end is None for child in self.alive()) else None

    def readable(self, fd: int, child: Child) -> None:
        """Something is to be read from `fd` of `child`."""
        if child.status is None and fd == child.pipe:
            self._read(child)
        elif child.status is None:
            self.look_after(child)

    def look_after(self, child: Child) -> None:
        """Where `child` has ended, read what it still reported and say how it ended."""
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return
        if child.pipe is not None:
            self._read(child, _waiting(child.pipe))
        kill_group(child.pid)  # whatever the rank started and left
        self._close(child)
        _, code = os.waitpid(child.pid, 0)
        child.status = code
        self._answer(
            op="exited",
            rank=child.index,
            signal=os.WTERMSIG(code) if os.WIFSIGNALED(code) else None,
            exit_code=os.WEXITSTATUS(code) if os.WIFEXITED(code) else None,
        )

    def kill(self) -> None:
        """End all that are left, and what is in their process groups."""
        left = self.alive()
        for child in left:
            kill_group(child.pid)
            os.kill(child.pid, signal.SIGKILL)
        for child in left:
            self._close(child)
            _, child.status = os.waitpid(child.pid, 0)

    def _read(self, child: Child, most: int = 1 << 20) -> None:
        """Relay what `child` reported, up to `most` bytes where they lie ready."""
        assert child.pipe is not None
        while most > 0:
            try:
                data = os.read(child.pipe, min(most, 1 << 20))
            except BlockingIOError:
                return
            if not data:
                self._close_pipe(child)
                return
            most -= len(data)
            child.received += len(data)
            for line in child.lines.take(data):
                self._relay(child, line.content, line.length)

    def _relay(self, child: Child, content: bytes, length: int) -> None:
        text = content.decode(errors="backslashreplace")
        self._answer(op="rank", rank=child.index, report=text, bytes=length)

    def _close_pipe(self, child: Child) -> None:
        if child.pipe is not None:
            self._selector.unregister(child.pipe)
            os.close(child.pipe)
            child.pipe = None

    def _close(self, child: Child) -> None:
        self._close_pipe(child)
        if child.end is not None:
            self._selector.unregister(child.end)
            os.close(child.end)
            child.end = None


def kill_group(pid: int) -> None:
    """Kill the process group `pid`, where there is one."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # the rank died before it became a group, or nothing of the group is left


def _pidfd(pid: int) -> Optional[int]:
    try:
        fd: int = os.pidfd_open(pid)
    except (AttributeError, OSError):  # an old C library or kernel, or one that denies it
        return None
    return fd


def _waiting(pipe: int) -> int:
    """Bytes that lie in a pipe."""
    count = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return int.from_bytes(count, "little")
