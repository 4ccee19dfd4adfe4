"""How often the interval of a paired ratio holds the truth, in simulation.

    python -m benchmarks.coverage [COMPARISONS]

Each comparison draws both sides' times for 3 to 30 rounds: a true ratio, times a drift that a
round shares (a random walk of 5 % a round), times lognormal noise of 5 % for every trial. The
targets are for that. Beside it, without a target, what outliers do: the same noise, and one
trial in ten takes 20 % longer on average (exponentially distributed), as on a machine that
others use.
"""

from __future__ import annotations

import math
import sys

import numpy as np

from analysis.statistics import NO_DIFFERENCE, paired_logs, ratio_of
from benchmarks.report import Targets

COMPARISONS = 4000
ROUNDS = (*range(3, 13), 15, 20, 25, 30)
TRUTH = 1.05
NOISE = 0.05
DRIFT = 0.05


def times(
    rng: np.random.Generator, rounds: int, ratio: float, outliers: float
) -> tuple[dict[int, float], dict[int, float]]:
    """Speeds by round of a baseline and of a candidate that is `ratio` times as fast."""
    drift = np.cumsum(rng.normal(0, DRIFT, rounds))
    logs = drift + rng.normal(0, NOISE, (2, rounds))
    logs -= np.where(rng.random((2, rounds)) < outliers, rng.exponential(0.2, (2, rounds)), 0)
    logs[1] += math.log(ratio)
    baseline, candidate = (dict(enumerate(np.exp(side).tolist())) for side in logs)
    return baseline, candidate


def covered(rounds: int, comparisons: int, outliers: float) -> tuple[float, float]:
    """Share of intervals that hold `TRUTH`, and of A/A comparisons without a difference [%]."""
    rng = np.random.default_rng(rounds)
    hits = quiet = 0
    for _ in range(comparisons):
        baseline, candidate = times(rng, rounds, TRUTH, outliers)
        interval = ratio_of(list(paired_logs(baseline, candidate).values())).interval
        assert interval is not None
        hits += interval.low <= TRUTH <= interval.high
        same = {r: speed / TRUTH for r, speed in candidate.items()}
        verdict = ratio_of(list(paired_logs(baseline, same).values())).verdict
        quiet += verdict == NO_DIFFERENCE
    return 100 * hits / comparisons, 100 * quiet / comparisons


def main() -> None:
    """Simulate, print the table, then the targets."""
    comparisons = int(sys.argv[1]) if len(sys.argv) > 1 else COMPARISONS
    print(f"{comparisons:,} comparisons for each number of rounds; shares in %")
    print("rounds  coverage  A/A no difference  |  with outliers: coverage  A/A no difference")
    targets = Targets()
    for rounds in ROUNDS:
        coverage, quiet = covered(rounds, comparisons, 0.0)
        outlying = covered(rounds, comparisons, 0.1)
        print(
            f"{rounds:6}  {coverage:8.1f}  {quiet:17.1f}  |  "
            f"{outlying[0]:23.1f}  {outlying[1]:17.1f}",
            flush=True,
        )
        if rounds >= 8:
            targets.check(f"coverage at {rounds} rounds", coverage, ">=", 93, "%")
            targets.check(f"coverage at {rounds} rounds", coverage, "<=", 97, "%")
    targets.finish()


if __name__ == "__main__":
    main()
