"""Are the rounds of real comparisons independent, and do intervals hold the truth?

    python -m benchmarks.independence [FILE]                       # default: validity_ratios.csv
    python -m benchmarks.independence FILE --results FOLDER        # make FILE of validity's records

FILE holds, for each round of each block of `benchmarks.validity`, the pairs of trials that were the
same but for the name of their environment (A/A: the true ratio is 1). It prints what could make an
interval miss the truth: a correlation from round to round, of each side and of their ratio; a bias
by which of the two ran first; scatter of a block's mean beyond what its rounds tell (a name that is
faster for a while); and tails. Then how often Student's interval and ours hold the truth in windows
of 3, 5 and 10 rounds that do not overlap.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import kurtosis, t

from analysis.frame import load
from analysis.statistics import interval_of_mean
from benchmarks.validity import NAMES

FILE = Path(__file__).with_name("validity_ratios.csv")
WINDOWS = (3, 5, 10)


class Estimate(NamedTuple):
    """A mean with its standard error."""

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.error:.2f}"


def pairs(block: int, frame: pd.DataFrame) -> pd.DataFrame:
    """The A/A pairs of a block's `analysis.frame.load`: a row for each round, and for each loop.

    Columns: `block`; `round`; `loop` [s], 0 without; `first` and `second`, ln of the median step in
    seconds under either name; `ratio`, their difference: ln of the second's speed over the first's;
    `apart`, by how many trials the second ran after the first, negative if before.
    """
    frame = frame.assign(
        place=frame.groupby("round").started.rank(),
        loop=frame["options.busy_s"].fillna(0.0).astype(float),
        log=np.log(frame.step_s),
    )
    wide = frame.pivot(index=["loop", "round"], columns="environment", values=["log", "place"])
    first, second = (wide["log"][name] for name in NAMES)
    apart = wide["place"][NAMES[1]] - wide["place"][NAMES[0]]
    made = pd.DataFrame({"first": first, "second": second, "ratio": first - second, "apart": apart})
    made = made.reset_index().astype({"apart": int}).round(6)
    made.insert(0, "block", block)
    return made


def lag_1(values: Sequence[float]) -> float:
    """Correlation of each value with the next, about their common mean.

    sum (x_i - m)(x_{i+1} - m) / sum (x_i - m)^2: Box, Jenkins, Reinsel and Ljung, "Time Series
    Analysis", equation 2.1.11. Of n independent values it is -1/n on average.
    """
    centred = np.asarray(values, dtype=float) - np.mean(values)
    return float(centred[:-1] @ centred[1:] / (centred @ centred))


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values."""
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))))


def correlation(table: pd.DataFrame, column: str) -> Estimate:
    """Mean over the series of each block of the lag-1 correlation, free of its bias of -1/n."""
    series = [group.sort_values("round")[column] for _, group in table.groupby(["block", "loop"])]
    return estimate([lag_1(one) + 1 / len(one) for one in series])


def order_bias(table: pd.DataFrame) -> Estimate:
    """By how many % the side that ran later was faster."""
    return estimate((100 * table.ratio * np.sign(table.apart)).tolist())


def excess_scatter(table: pd.DataFrame) -> tuple[float, float]:
    """Mean square of the blocks' t = mean / standard error, and what independent rounds give.

    That is (n - 1) / (n - 3), the variance of Student's t with n - 1 degrees of freedom.
    """
    groups = [group.ratio for _, group in table.groupby(["block", "loop"])]
    squares = [one.mean() ** 2 / (one.var() / len(one)) for one in groups]
    n = float(np.median([len(one) for one in groups]))
    return float(np.mean(squares)), (n - 1) / (n - 3) if n > 3 else float("inf")


def coverage(table: pd.DataFrame, window: int) -> tuple[int, int, int]:
    """Windows of `window` rounds, and in how many 0 lies in Student's interval and in ours."""
    count = students = ours = 0
    for _, group in table.groupby(["block", "loop"]):
        ratios = group.sort_values("round").ratio.to_numpy()
        for start in range(0, len(ratios) - window + 1, window):
            part = ratios[start : start + window]
            reach = t.ppf(0.975, window - 1) * part.std(ddof=1) / np.sqrt(window)
            interval = interval_of_mean(part.tolist())
            count += 1
            students += abs(part.mean()) <= reach
            ours += interval.low <= 0 <= interval.high
    return count, students, ours


def report(table: pd.DataFrame) -> None:
    """Print it all."""
    series = table.groupby(["block", "loop"]).ngroups
    scatter = 100 * np.sqrt(table.groupby(["block", "loop"]).ratio.var().mean())
    print(f"{len(table)} A/A pairs in {series} series; a ratio scatters by {scatter:.1f} %")
    print(f"lag-1 correlation of one side: {correlation(table, 'first')}")
    print(f"lag-1 correlation of the ratio: {correlation(table, 'ratio')}")
    print(f"the later of the two is faster by {order_bias(table)} %")
    names = estimate((100 * table.groupby(["block", "loop"]).ratio.mean()).tolist())
    print(f"the second name is faster by {names} %")
    seen, due = excess_scatter(table)
    print(f"mean square of t over the series: {seen:.2f}, {due:.2f} if rounds are independent")
    centred = table.ratio - table.groupby(["block", "loop"]).ratio.transform("mean")
    print(f"excess kurtosis of the ratio: {kurtosis(centred):+.1f}")
    for window in WINDOWS:
        count, students, ours = coverage(table, window)
        print(f"windows of {window} rounds: {students} of {count} by Student's, {ours} by ours")


def main() -> None:
    """Make the file if records are given; then report on it."""
    parser = argparse.ArgumentParser(description="Are rounds of real comparisons independent?")
    parser.add_argument("file", type=Path, nargs="?", default=FILE)
    parser.add_argument("--results", type=Path, help="the folder of `validity --results`")
    chosen = parser.parse_args()
    if chosen.results:
        blocks = sorted(chosen.results.glob("block-*"))
        made = [pairs(number, load(folder)) for number, folder in enumerate(blocks)]
        pd.concat(made).to_csv(chosen.file, index=False)
    elif not chosen.file.exists():
        parser.error(f"{chosen.file}: no such file; --results FOLDER makes it")
    report(pd.read_csv(chosen.file))


if __name__ == "__main__":
    main()
