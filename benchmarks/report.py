"""How every benchmark ends: one line per target, and exit code 1 when one is missed."""

from __future__ import annotations

import operator
import sys
from dataclasses import dataclass, field
from typing import NoReturn

COMPARISONS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}


@dataclass
class Targets:
    """Collects what a benchmark found; `finish` prints the verdicts and leaves."""

    lines: list[str] = field(default_factory=list)
    missed: bool = False

    def check(
        self, name: str, value: float, comparison: str, target: float, unit: str = ""
    ) -> None:
        """Compare `value` with `target` (both in `unit`); a NaN misses every target."""
        reached = COMPARISONS[comparison](value, target)
        self.missed |= not reached
        suffix = f" {unit}" if unit else ""
        verdict = "reached" if reached else "missed"
        self.lines.append(
            f"{name}: {value:,.4g}{suffix} (target {comparison} {target:,.4g}{suffix}): {verdict}"
        )

    def finish(self) -> NoReturn:
        """Print one line per target; exit code 0, or 1 when one was missed."""
        print("\n".join(["", *self.lines]))
        sys.exit(1 if self.missed else 0)
