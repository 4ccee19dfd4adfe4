"""How precise the configurations of a sweep are, and which of them need further rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from bench.controller.ledger import Ledger
from bench.rounds import figure_of_rounds
from bench.trial import Configuration


@dataclass(frozen=True)
class Widths:
    """Relative half-widths of the configurations' 95 % intervals after some rounds."""

    goal: float
    """What `precision` asks for (0.02: 2 %)."""
    rounds: int
    """Rounds that a configuration has by now, at most."""
    of: Mapping[str, float]
    """By configuration hash; infinite with too few rounds for an interval. Configurations that
    failed are not among them: repeating them would say nothing new."""

    @property
    def wanting(self) -> set[str]:
        """Hashes of the configurations that are not precise yet."""
        return {config_hash for config_hash, width in self.of.items() if width > self.goal}

    @property
    def widest(self) -> float:
        """The largest half-width; 0 where there is none."""
        return max(self.of.values(), default=0.0)


def widths(
    configurations: Sequence[Configuration], ledger: Ledger, goal: float, rounds: int
) -> Widths:
    """Where `configurations` stand after `rounds` rounds, by the records in `ledger`.

    A configuration that was precise after fewer rounds stopped there, and counts with those.
    """
    of = {one.hash: _width(one.hash, ledger, rounds) for one in configurations}
    return Widths(goal, rounds, {key: width for key, width in of.items() if width is not None})


def _width(config_hash: str, ledger: Ledger, rounds: int) -> Optional[float]:
    """Half-width of the interval of the median over rounds, over that median; None: a failure.

    It is the interval that `spbench show` prints (`bench.rounds.median_interval`).
    """
    steps = []
    for round_ in range(rounds):
        entry = ledger.find((config_hash, round_))
        if entry is None:
            break
        if entry.step_s is None:
            return None
        steps.append(entry.step_s)
    # Speeds, as the table has them: the median of their reciprocals may be another value.
    return figure_of_rounds([1 / step_s for step_s in steps]).half_width if steps else math.inf
