"""A row of the self-check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from bench.controller.selfcheck.stand import Stand


@dataclass(frozen=True)
class Seen:
    """What a row found."""

    text: str
    passed: Optional[bool] = None
    """None: it is shown and not judged."""


@dataclass(frozen=True)
class Row:
    """One thing that is checked."""

    name: str
    expected: str
    """In words; what is judged is in `run`."""
    run: Callable[[Stand], Seen]
    needs_gpu: bool = False


@dataclass(frozen=True)
class Result:
    """A row, what it found and how long it took."""

    row: Row
    seen: Seen
    seconds: float

    @property
    def missed(self) -> bool:
        """Whether it is a reason for exit code 1."""
        return self.seen.passed is False


def together(parts: list[tuple[str, bool]]) -> Seen:
    """One finding of several parts: all of their texts, and whether all passed."""
    return Seen("; ".join(text for text, _ in parts), all(passed for _, passed in parts))
