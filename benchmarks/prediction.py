"""Predicts recorded trials that were left out of the fit: longer sequences, other splits.

    python -m benchmarks.prediction [RESULTS] [--record [OVERRIDE …]]

RESULTS is a results folder of this machine (default: results/prediction). `--record` runs the
experiment `prediction` into it first, with the overrides of a sweep that follow it.

The efficiencies are fitted to the other configurations of the folder, at the rates that this
machine measures of itself; what was left out plays no part in it. The target holds for the
median absolute error; every prediction is printed.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from analysis.frame import load
from analysis.prediction.checks import held_out, objections, ways
from analysis.prediction.fit import Fit, points_of
from analysis.statistics import median
from bench.controller.server_process import ROOT
from bench.controller.this_machine import measured
from benchmarks.report import Targets

TARGET_PERCENT = 20.0
DEFAULT = ROOT / "results" / "prediction"


def main() -> None:
    """Fit, predict, and print the errors and the target."""
    parser = argparse.ArgumentParser(description="Predicts trials that no fit has seen.")
    parser.add_argument("results", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument(
        "--record", nargs="*", metavar="OVERRIDE", help="run the experiment first, with these"
    )
    arguments = parser.parse_args()
    if arguments.record is not None:
        sweep = [str(ROOT / "spbench"), "sweep", "+experiment=prediction", "report=false"]
        subprocess.run([*sweep, f"results={arguments.results}", *arguments.record], check=True)
    points = points_of(load(arguments.results))
    [world] = {point.world for point in points}
    cluster = measured(world)
    print(
        f"{len(points)} configurations on {world} ranks; a rank reaches "
        f"{cluster.peak_flops / 1e9:,.1f} GFLOP/s, {cluster.memory_bandwidth / 1e9:,.1f} GB/s in "
        f"memory, {cluster.intra.bandwidth / 1e9:,.2f} GB/s to others"
    )
    for text in objections(points, cluster):
        print(f"impossible: {text}")
    targets = Targets()
    for name, left_out in ways(points).items():
        made, predictions = held_out(points, cluster, left_out)
        print(f"\nleft out: {name}; fitted to {len(made.residuals)} ({_shares(made)})")
        for one in predictions:
            print(
                f"  {one.point.label}: {one.point.step_s:.4f} s, predicted "
                f"{one.predicted_s:.4f} s ({one.relative:+.1%})"
            )
        errors = [100 * abs(one.relative) for one in predictions]
        print(f"  median {median(errors):.1f} %, largest {max(errors):.1f} %")
        targets.check(f"left out {name}: median error", median(errors), "<=", TARGET_PERCENT, "%")
    targets.finish()


def _shares(made: Fit) -> str:
    names = ("matmul", "attention", "all_to_all")
    shares = [f"{name} {100 * getattr(made.shares, name):.0f} %" for name in names]
    overheads = [
        f"{1000 * seconds:.0f} ms at ZeRO {stage}"
        for stage, seconds in made.step_overhead_s.items()
    ]
    return ", ".join([*shares, *overheads])


if __name__ == "__main__":
    main()
