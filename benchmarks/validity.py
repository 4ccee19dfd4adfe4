"""Whether comparisons tell the truth: no difference where there is none, and known ones found.

    python -m benchmarks.validity [--blocks N] [--results FOLDER]

One interleaved sweep of seven configurations of real trials: A under four names, each on a
server of its own; and A with a busy loop in every step that makes it 3, 5 and 10 % longer
(`options.busy_s`, set from the median step of a few trials before). Every 10 rounds are a block.
In a block each A is compared with each other A (6 comparisons) and with each slower one (4 of
each), by `analysis.compare` as a user would; its first 3, 5 and 8 rounds show what fewer would
have told, and two blocks together what twice as many. Comparisons of one block share trials,
which makes them cheaper, not likelier to be right. The true slowdown is the loop over the median
step of the 40 trials of A in the block, so that a drift of the machine over the hour counts as
what it is.

The configuration is light: two ranks, one for each core of a small machine (more would measure
the scheduler), one layer, a short sequence, no gradient check. Its trials have 200 steps, some
3 s: what a shared machine does within a second goes into the ratio with shorter ones (two
layers and 40 steps, 1 s: the ratio of one round scattered by 7 %).

With --results the records stay in FOLDER, and the same command continues what was interrupted.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.compare import compare
from analysis.frame import load
from analysis.statistics import FASTER, NO_DIFFERENCE, SLOWER, median
from bench.controller import sweep
from bench.controller.config import Settings
from bench.controller.environments import provide
from bench.controller.host import Hosts
from bench.controller.precision import Widths
from bench.controller.provenance import MachineWatch
from bench.record import Record
from bench.rounds import slowest
from bench.trial import Configuration, Trial
from benchmarks.launching import TINY, configuration
from benchmarks.report import Targets

BLOCKS = 8
ROUNDS = 10
FEWER = (3, 5, 8)
MORE = 20
SLOWDOWNS = (0.03, 0.05, 0.10)
PLAIN = ("a", "a-2", "a-3", "a-4")
"""One configuration under four names: none is faster than another."""
CALIBRATION = 8
"""Trials that set the length of the busy loops."""


class Outcome(NamedTuple):
    """One comparison, beside what is true."""

    slowdown: float
    """What was meant: 0 for A/A."""
    rounds: int
    verdict: str
    covers: bool
    """Whether the interval holds the true ratio."""
    half_width: float
    """Of the interval, relative."""


class Progress:
    """A line for every block."""

    def __init__(self, trials: int) -> None:
        self._trials = trials
        self._done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def begin(self, trial: Trial) -> None:
        """Nothing to say."""

    def note(self, trial: Trial, text: str) -> None:
        """Nothing to say."""

    def done(self, trial: Trial, record: Record | None) -> None:  # noqa: ARG002
        """Count; say when a block is complete."""
        self._done += 1
        if self._done % (len(PLAIN) + len(SLOWDOWNS)) == 0 and self._done % ROUNDS == 0:
            print(f"{self._done:,} of {self._trials:,} trials", flush=True)

    def waiting(self, trial: Trial) -> None:
        """Nothing to say."""

    def precision(self, found: Widths, total: int) -> None:
        """Not asked for."""


def plain(name: str = "a", busy_s: float = 0.0) -> Configuration:
    """A, under `name`, with a busy loop in every step."""
    made = configuration(
        "torch-2.13",
        world=2,
        sp=2,
        zero=0,
        seq_len=128,
        warmup_steps=3,
        steps=200,
        model=TINY.model_copy(update={"name": "one-layer", "layers": 1}),
        gradient_check=False,
        options={"busy_s": busy_s} if busy_s else {},
    )
    return made.model_copy(
        update={"environment": made.environment.model_copy(update={"name": name})}
    )


def busy_loops(hosts: Hosts, folder: Path) -> list[float]:
    """Seconds per step that make `SLOWDOWNS`: of an earlier sweep in `folder`, or measured."""
    if list(folder.glob("records-*")):
        before = load(folder)
        if "options.busy_s" in before:
            return sorted(before["options.busy_s"].dropna().unique())
    steps = []
    for round_ in range(CALIBRATION):
        record = hosts.run(Trial(configuration=plain("calibration"), round=round_), folder)
        step_s = slowest([one.step_s for one in record.samples])
        if step_s is None:
            raise SystemExit(f"calibration failed: {record.status.value}, {record.reason}")
        steps.append(step_s)
    return [round(share * median(steps), 7) for share in SLOWDOWNS]


def record_pool(folder: Path, blocks: int) -> pd.DataFrame:
    """Sweep `folder` full; gives its frame."""
    settings = Settings(results=folder, rounds=blocks * ROUNDS, seed=0, report=False)
    with Hosts(provide) as hosts:
        loops = busy_loops(hosts, folder)
        pool = [*map(plain, PLAIN), *(plain(busy_s=loop) for loop in loops)]
        schedule = sweep.Schedule(pool, settings)
        sweep.run(schedule, hosts, Progress(len(schedule.left)), MachineWatch())
    return load(folder)


def outcomes(frame: pd.DataFrame, blocks: int) -> Iterator[Outcome]:
    """Every comparison of the pool, at `ROUNDS` rounds, at fewer and at `MORE`."""
    loops = sorted(frame["options.busy_s"].dropna().unique())
    parts = [(b * ROUNDS, n, ROUNDS) for b in range(blocks) for n in (*FEWER, ROUNDS)]
    parts += [(start, MORE, MORE) for start in range(0, blocks * ROUNDS - MORE + 1, MORE)]
    for start, rounds, length in parts:
        part = frame[frame["round"].between(start, start + rounds - 1)]
        whole = frame[frame["round"].between(start, start + length - 1)]
        step_s = median(whole[whole["options.busy_s"].isna()].step_s.tolist())
        for one, other in itertools.combinations(PLAIN, 2):
            yield _outcome(part, _side(one), _side(other), 0.0, 1.0)
        for slowdown, loop in zip(SLOWDOWNS, loops, strict=True):
            for name in PLAIN:
                truth = 1 / (1 + loop / step_s)
                yield _outcome(part, _side(name), _side("a", str(loop)), slowdown, truth)


def _side(name: str, loop: str = "none") -> dict[str, str]:
    return {"environment": name, "options.busy_s": loop}


def _outcome(
    part: pd.DataFrame,
    baseline: dict[str, str],
    candidate: dict[str, str],
    slow: float,
    true: float,
) -> Outcome:
    [point] = compare(part, baseline, candidate).points
    interval, value = point.ratio.interval, point.ratio.value
    assert interval is not None and value is not None
    covers = interval.low <= true <= interval.high
    half_width = (interval.high - interval.low) / 2 / value
    rounds = part["round"].nunique()
    return Outcome(slow, rounds, point.verdict, covers, half_width)


def main() -> None:
    """Measure, print the table, then the targets."""
    parser = argparse.ArgumentParser(description="Whether comparisons tell the truth.")
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    parser.add_argument("--results", type=Path, help="keep the records here, and resume")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spbench-validity-") as temporary:
        folder = chosen.results or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        frame = record_pool(folder, chosen.blocks)
    failed = frame[frame.status != "ok"]
    print(f"{len(frame):,} trials, {len(failed)} not ok, {(frame.noisy != '').sum()} noisy")
    step_ms, trial_s = 1e3 * frame.step_s.median(), frame.duration_s.median()
    print(f"median step {step_ms:.2f} ms, trial {trial_s:.2f} s")
    print(f"the ratio of one round between two A's scatters by {100 * scatter(frame):.1f} %")
    found = pd.DataFrame(outcomes(frame, chosen.blocks))
    table(found)
    check(found)


def scatter(frame: pd.DataFrame) -> float:
    """Standard deviation of the logarithm of one round's ratio between two names of A."""
    same = frame[frame["options.busy_s"].isna()]
    logs = np.log(same.pivot(index="round", columns="environment", values="step_s"))
    pairs = itertools.combinations(PLAIN, 2)
    return float(np.sqrt(np.mean([(logs[a] - logs[b]).var() for a, b in pairs])))


def table(found: pd.DataFrame) -> None:
    """Shares of the comparisons in %, by what was true and the number of rounds."""
    print("slowdown  rounds  comparisons  slower  faster  no difference  holds truth  half-width")
    for (slowdown, rounds), group in found.groupby(["slowdown", "rounds"]):
        seen = 100 * group.verdict.value_counts(normalize=True)
        print(
            f"{100 * slowdown:6.0f} %  {rounds:6}  {len(group):11}  {seen.get(SLOWER, 0):6.1f}  "
            f"{seen.get(FASTER, 0):6.1f}  {seen.get(NO_DIFFERENCE, 0):13.1f}  "
            f"{100 * group.covers.mean():11.1f}  {100 * group.half_width.median():8.1f} %"
        )


def check(found: pd.DataFrame) -> None:
    """The targets, at `ROUNDS` rounds."""
    at = found[found.rounds == ROUNDS]
    targets = Targets()

    def share(of: pd.Series) -> float:
        return 100 * float(of.mean())

    same = at[at.slowdown == 0]
    targets.check("A/A: no difference seen", share(same.verdict == NO_DIFFERENCE), ">=", 95, "%")
    for slowdown, target in ((0.10, 95), (0.05, 80)):
        slow = at[at.slowdown == slowdown]
        name = f"{100 * slowdown:.0f} % slower: found"
        targets.check(name, share(slow.verdict == SLOWER), ">=", target, "%")
    targets.check("intervals that hold the truth", share(at.covers), ">=", 90, "%")
    targets.finish()


if __name__ == "__main__":
    main()
