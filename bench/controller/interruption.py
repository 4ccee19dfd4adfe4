"""One interruption ends a command; those that follow must not end its tidying up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def once() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first Ctrl-C, SIGTERM or end of the terminal, and only then.

    While servers are ended and folders removed, an impatient second Ctrl-C changes nothing: it
    takes seconds. A signal that was ignored before, as SIGHUP is under nohup, stays ignored.
    """

    def interrupt(_number: int, _frame: object) -> None:
        for number in before:
            signal.signal(number, _pass)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _NUMBERS}
    before = {number: one for number, one in before.items() if one != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass(_number: int, _frame: object) -> None:
    """Not SIG_IGN: of a signal that is pending then, Python complains on stderr."""
