"""What the two halves of `benchmarks.fuzz` share: running a command in process, and counting."""

from __future__ import annotations

import functools
import io
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from types import FrameType
from typing import NamedTuple, Optional
from unittest.mock import patch

import typer

from bench import cli
from bench.printable import printable

ALLOWED_EXITS = frozenset({0, 1, 2, 3})
REFUSALS = frozenset({2, 3})
SLOW_S = 5.0
"""CPU-seconds that one command may take."""
LIMIT_S = 60
"""Of the clock, after which a command is ended: it may loop for ever."""


KINDS = ("tracebacks", "slow", "printed", "outside", "differing")
"""The lists of a tally that hold faults."""


class Fault(NamedTuple):
    """A command that did what none may do."""

    command: str
    """What was run, enough to run it again."""
    why: str


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    exit_code: Optional[int]
    """None: with a traceback."""
    said: str
    errors: str
    """Of what was said, that on stderr; the traceback, if there is one."""
    cpu_s: float


@dataclass
class Tally:
    """How many commands were run, how they ended, and what they did wrong."""

    exits: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0
    """CPU-seconds."""
    tracebacks: list[Fault] = field(default_factory=list)
    slow: list[Fault] = field(default_factory=list)
    printed: list[Fault] = field(default_factory=list)
    """Commands that printed control characters, or a refusal that is not one line."""
    outside: list[Fault] = field(default_factory=list)
    """Commands that changed something outside their folder."""
    differing: list[Fault] = field(default_factory=list)
    """Files of whose records the ledger and the readers think differently."""

    @property
    def faults(self) -> list[Fault]:
        """All of them."""
        return [fault for kind in KINDS for fault in getattr(self, kind)]

    def count(self, command: str, ended: Ended) -> None:
        """Count a command, and what it did wrong."""
        self.slowest_s = max(self.slowest_s, ended.cpu_s)
        if ended.cpu_s > SLOW_S:
            self.slow.append(Fault(command, f"{ended.cpu_s:.1f} s of CPU"))
        if ended.exit_code is None:
            self.tracebacks.append(Fault(command, ended.errors))
            return
        self.exits[ended.exit_code] += 1
        if ended.exit_code not in ALLOWED_EXITS:
            self.tracebacks.append(Fault(command, f"exit code {ended.exit_code}"))
        if printable(ended.said) != ended.said:
            self.printed.append(Fault(command, f"control characters in {ended.said!r}"))
        lines = [one for one in ended.errors.splitlines() if "not counted: " not in one]
        if ended.exit_code in REFUSALS and len(lines) != 1:
            self.printed.append(Fault(command, f"{len(lines)} lines of refusal: {lines}"))

    def add(self, other: Tally) -> None:
        """Take in what another process counted."""
        self.exits.update(other.exits)
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        for kind in KINDS:
            getattr(self, kind).extend(getattr(other, kind))


_command_of = functools.cache(typer.main.get_command)
"""Making the tree of commands anew for each takes a fifth of the time."""


def spbench(*arguments: str) -> Ended:
    """Run the command line in this process, as a user does."""

    def main() -> None:
        argv, sys.argv = sys.argv, ["spbench", *arguments]
        try:
            with patch.object(typer.main, "get_command", _command_of):
                cli.main()
        finally:
            sys.argv = argv

    return ended(main)


def ended(call: Callable[[], None]) -> Ended:
    """Run `call`, whatever it does."""
    out, err = io.StringIO(), io.StringIO()
    code: Optional[int] = 0
    began = time.process_time()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            with _limited():
                call()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
        except typer.Exit as left:  # a verb's own function, without the command line around it
            code = left.exit_code
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - it is what is looked for
            code = None
            traceback.print_exc(limit=-6, file=err)
    said = out.getvalue() + err.getvalue()
    return Ended(code, said, err.getvalue(), time.process_time() - began)


class TooLongError(BaseException):
    """A command that did not end; no command catches it."""


@contextmanager
def _limited() -> Iterator[None]:
    def end(_signal: int, _frame: Optional[FrameType]) -> None:
        raise TooLongError(f"still running after {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
