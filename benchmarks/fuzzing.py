"""What the two halves of `benchmarks.fuzz` count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

ALLOWED_EXITS = frozenset({0, 1, 2, 3})
SLOW_S = 5.0
"""CPU-seconds that one command may take."""


class Fault(NamedTuple):
    """A command that did what none may do."""

    command: str
    """What was run, enough to run it again."""
    why: str


@dataclass
class Tally:
    """How many commands were run, how they ended, and what they did wrong."""

    exits: Counter[int] = field(default_factory=Counter)
    tracebacks: list[Fault] = field(default_factory=list)
    slow: list[Fault] = field(default_factory=list)
    outside: list[Fault] = field(default_factory=list)
    """Commands that changed something outside their folder."""

    def ended(self, command: str, exit_code: int, cpu_s: float) -> None:
        """Count a command that ended without a traceback."""
        self.exits[exit_code] += 1
        if exit_code not in ALLOWED_EXITS:
            self.tracebacks.append(Fault(command, f"exit code {exit_code}"))
        if cpu_s > SLOW_S:
            self.slow.append(Fault(command, f"{cpu_s:.1f} s of CPU"))
