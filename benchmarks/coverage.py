"""How often the interval of a paired ratio holds the truth, in simulation.

    python -m benchmarks.coverage [COMPARISONS]

Each comparison draws both sides' speeds for 3 to 30 rounds: a true ratio, times a drift that a
round shares (a random walk of 5 % a round), times lognormal noise of 5 % for every trial. Beside
it, what outliers do: one trial in ten takes 20 % longer on average (exponentially distributed),
as on a machine that others use. Then what breaks the assumption that rounds are independent, and
what several points give together (`benchmarks.coverage_cases`). Targets are for what can be met.
"""

from __future__ import annotations

import math
import sys

import numpy as np

from analysis.statistics import NO_DIFFERENCE, paired_logs, ratio_of
from benchmarks.coverage_cases import (
    NOISE,
    POINTS,
    TRUTH,
    alike_ratios,
    alike_sides,
    one_sided,
    overall,
)
from benchmarks.report import Targets

COMPARISONS = 4000
ROUNDS = (*range(3, 13), 15, 20, 25, 30)
DRIFT = 0.05
FEWER = (3, 5, 10, 20, 30)
"""Numbers of rounds at which assumptions are broken."""
CORRELATIONS = (0.3, 0.5)


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
        interval = ratio_of(paired_logs(baseline, candidate)).interval
        assert interval is not None
        hits += interval.low <= TRUTH <= interval.high
        same = {r: speed / TRUTH for r, speed in candidate.items()}
        quiet += ratio_of(paired_logs(baseline, same)).verdict == NO_DIFFERENCE
    return 100 * hits / comparisons, 100 * quiet / comparisons


def main() -> None:
    """Simulate, print the tables, then the targets."""
    comparisons = int(sys.argv[1]) if len(sys.argv) > 1 else COMPARISONS
    targets = Targets()
    print(f"{comparisons:,} comparisons for each number of rounds; shares in %")
    print("rounds  coverage  A/A no difference  |  with outliers: coverage  A/A no difference")
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
    dependent(comparisons, targets)
    print("outliers on one side: rounds, holds the mean ratio, holds that of undisturbed trials")
    for rounds in FEWER:
        every, alone = one_sided(rounds, comparisons)
        print(f"{rounds:6}  {every:5.1f}  {alone:5.1f}", flush=True)
    print("points as one: holds the truth, half-width, half-width over the common rounds alone")
    for case in POINTS:
        holds, wide, common = overall(case, comparisons)
        print(f"  {holds:5.1f}  {wide:4.1f} %  {common:4.1f} %  {case.name}", flush=True)
        if case.judged:
            targets.check(f"points as one, {case.name}: coverage", holds, ">=", 93, "%")
    targets.finish()


def dependent(comparisons: int, targets: Targets) -> None:
    """Noise that is correlated in time, cancelled by pairing or not."""
    for what, simulate in (("each side", alike_sides), ("the paired ratio", alike_ratios)):
        print(f"correlated noise of {what}; plain: as if rounds were independent")
        print("rounds  coverage  plain  widened  correlation of a side, of the ratio")
        for correlation in CORRELATIONS:
            for rounds in FEWER:
                tally = simulate(correlation, rounds, comparisons)
                print(
                    f"{rounds:6}  {tally.holds:8.1f}  {tally.plain:5.1f}  {tally.widened:7.1f}"
                    f"  {tally.side:21.2f}  {tally.ratio:12.2f}",
                    flush=True,
                )
                if simulate is alike_sides and rounds >= 5:
                    name = f"coverage at {rounds} rounds, sides correlated by {correlation}"
                    targets.check(name, tally.holds, ">=", 93, "%")


if __name__ == "__main__":
    main()
