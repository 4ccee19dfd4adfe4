"""What measuring costs: a step inside the harness against the same step in a bare loop.

Both are taken by the same two ranks on the same engine, in an order that is shuffled anew in
every round, so that a drift of the machine hits both alike. A round's ratio is that of the
medians of its steps; the figure is the median over rounds, with its 95 % interval.

    python -m benchmarks.instrumentation [--rounds N] [--steps N]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from analysis.statistics import median, median_interval
from bench.controller.environments import provide
from bench.controller.hosts import Hosts
from bench.trial import Trial
from benchmarks.launching import configuration, torchrun
from benchmarks.report import Targets

ROUNDS, STEPS = 240, 10


def main() -> None:
    """Measure, print the ratio with its interval, and the target."""
    parser = argparse.ArgumentParser(description="What measuring a step costs.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each side in a round")
    chosen = parser.parse_args()
    c = configuration("torch-2.13", world=2, sp=2, loss="all_gather", seq_len=128)
    with tempfile.TemporaryDirectory() as folder, Hosts(provide) as hosts:
        hosts.run(Trial(configuration=c, round=0), Path(folder))  # makes the reference's weights
    sizes = (str(chosen.rounds), str(chosen.steps))
    rounds = torchrun(provide(c.environment), c, "instrument", *sizes)[0]
    ratios = [median(instrumented) / median(bare) for bare, instrumented in rounds]
    bare_s = median([median(bare) for bare, _ in rounds])
    interval = median_interval(ratios)
    ratio = median(ratios)
    print(f"bare step {bare_s * 1e3:.2f} ms; ", end="")
    print(f"{chosen.rounds} rounds of {chosen.steps} steps on each side")
    print(
        f"instrumented / bare {ratio:.4f}, "
        f"{interval.level:.0%} interval {interval.low:.4f} to {interval.high:.4f}"
    )
    targets = Targets()
    targets.check("cost of instrumentation", abs(ratio - 1.0) * 100.0, "<=", 1.0, "%")
    targets.finish()


if __name__ == "__main__":
    main()
