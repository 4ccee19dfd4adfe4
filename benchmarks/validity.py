"""Whether comparisons tell the truth: no difference where there is none, and known ones found.

    python -m benchmarks.validity [--blocks N] [--rounds N] [--steps N] [--seq-len N]
                                  [--results FOLDER]

Every block is an interleaved sweep of 10 rounds of real trials of four configurations: A under
two names, each on a server of its own; and the same two with a busy loop in every step that
makes it 3, 5 or 10 % longer (`options.busy_s`, set from the median step of a few trials
before). In a block the two names are compared with each other, with and without the loop (2
comparisons), and each without the loop with each that has it (4), by `analysis.compare` as a
user would. Its first 3, 5 and 8 rounds show what fewer would have told, and two blocks of one
slowdown together what twice as many. Comparisons of one block share trials, which makes them
cheaper, not likelier to be right.

The true slowdown is what all trials of the other blocks with the same loop say together. It is not
the loop over the step: the forward pass that follows a loop takes 0.4 to 1.0 ms longer too (colder
caches, perhaps). What the loops are, what they came out as, and how many intervals hold what the
loop alone would make is printed.

The configuration is the default model on 2,048 tokens over two ranks, one for each core of a
small machine (more would measure the scheduler), without the gradient check. Its trials have 40
steps of some 110 ms, 5 s in all. Both matter: a step of 12 ms (one layer, 128 tokens) is mostly
waiting to be woken up, and scatters by 25 % instead of 7 %; and a machine shared with others
changes from second to second, which a longer trial averages, but from minute to minute as well,
which only a short round takes out.

With --results the records stay in FOLDER, and the same command continues what was interrupted.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
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
from bench.controller.hosts import Hosts
from bench.controller.provenance import MachineWatch
from bench.rounds import slowest
from bench.trial import Configuration, Trial
from benchmarks.launching import Silent, configuration
from benchmarks.report import Targets

BLOCKS = 21
FEWER = (3, 5, 8)
SLOWDOWNS = (0.05, 0.10, 0.03)
"""One after the other, block by block."""
FEWEST_BLOCKS = 3 * len(SLOWDOWNS)
"""So that two that are joined leave a third to tell the truth."""
NAMES = ("a", "a-2")
"""One environment under two names: none is faster than the other."""
CALIBRATION = 8
"""Trials that set the length of the busy loops."""


@dataclass(frozen=True)
class Size:
    """Of every block."""

    rounds: int = 10
    steps: int = 40
    seq_len: int = 2048
    """Tokens."""


class Outcome(NamedTuple):
    """One comparison, beside what is true."""

    slowdown: float
    """What was meant: 0 for A/A."""
    rounds: int
    verdict: str
    covers: bool
    """Whether the interval holds the true ratio."""
    covers_loop: bool
    """Whether it holds what the loop alone would make."""
    half_width: float
    """Of the interval, relative."""


@dataclass(frozen=True, eq=False)
class Block:
    """The records of one block."""

    slowdown: float
    loop_s: float
    """Length of the busy loop."""
    frame: pd.DataFrame
    """One row for each trial."""

    @property
    def rounds(self) -> int:
        """How many there are."""
        return int(self.frame["round"].nunique())

    @property
    def plain_step_s(self) -> float:
        """Median step of A."""
        return median(self.frame[self.frame["options.busy_s"].isna()].step_s.tolist())


def plain(size: Size, name: str = NAMES[0], busy_s: float = 0.0) -> Configuration:
    """A, under `name`, with a busy loop in every step."""
    made = configuration(
        "torch-2.13",
        world=2,
        sp=2,
        zero=0,
        seq_len=size.seq_len,
        steps=size.steps,
        gradient_check="off",
        options={"busy_s": busy_s} if busy_s else {},
    )
    return made.model_copy(
        update={"environment": made.environment.model_copy(update={"name": name})}
    )


def median_step_s(hosts: Hosts, folder: Path, size: Size) -> float:
    """Of A: what an earlier run noted in `folder`, or that of a few trials now."""
    noted = folder / "step_s.txt"
    if noted.exists():
        return float(noted.read_text())
    steps = []
    for round_ in range(CALIBRATION):
        trial = Trial(configuration=plain(size, "calibration"), round=round_)
        record = hosts.run(trial, folder)
        step_s = slowest([one.step_s for one in record.samples])
        if step_s is None:
            raise SystemExit(f"calibration failed: {record.status.value}, {record.reason}")
        steps.append(step_s)
    noted.write_text(str(median(steps)))
    return median(steps)


def record_blocks(folder: Path, blocks: int, size: Size) -> list[Block]:
    """Sweep every block into a folder of its own under `folder`."""
    made = []
    with Hosts(provide) as hosts:
        step_s = median_step_s(hosts, folder, size)
        for number in range(blocks):
            slowdown = SLOWDOWNS[number % len(SLOWDOWNS)]
            loop = round(slowdown * step_s, 7)
            results = folder / f"block-{number:02}"
            sweep.create(results)
            settings = Settings(results=results, rounds=size.rounds, seed=number, report=False)
            pool = [plain(size, name, busy_s) for name in NAMES for busy_s in (0.0, loop)]
            schedule = sweep.Schedule(pool, settings)
            sweep.run(schedule, hosts, Silent(), MachineWatch())
            print(f"block {number + 1} of {blocks}", flush=True)
            made.append(Block(slowdown, loop, load(results)))
    return made


def outcomes(blocks: Sequence[Block]) -> Iterator[Outcome]:
    """Every comparison of the blocks: at all their rounds, at fewer and at twice as many."""
    for members in (*((block,) for block in blocks), *_pairs(blocks)):
        slowdown = members[0].slowdown
        truth = true_ratio([b for b in blocks if b.slowdown == slowdown and b not in members])
        step_s = median([block.plain_step_s for block in members])
        alone = 1 / (1 + members[0].loop_s / step_s)
        frames = [
            block.frame.assign(round=block.frame["round"] + block.rounds * index)
            for index, block in enumerate(members)
        ]
        frame = pd.concat(frames, ignore_index=True)
        whole = sum(block.rounds for block in members)
        fewer = [rounds for rounds in FEWER if rounds < whole] if len(members) == 1 else []
        for rounds in (*fewer, whole):
            part = frame[frame["round"] < rounds]
            for loop in ("none", str(members[0].loop_s)):
                one, other = (_side(name, loop) for name in NAMES)
                yield _outcome(part, one, other, 0.0, (1.0, 1.0))
            for name, slow_name in itertools.product(NAMES, NAMES):
                one, other = _side(name, "none"), _side(slow_name, str(members[0].loop_s))
                yield _outcome(part, one, other, slowdown, (truth, alone))


def _pairs(blocks: Sequence[Block]) -> Iterator[tuple[Block, Block]]:
    """Blocks of one slowdown, two and two."""
    for slowdown in SLOWDOWNS:
        same = [block for block in blocks if block.slowdown == slowdown]
        yield from zip(same[::2], same[1::2])


def true_ratio(blocks: Sequence[Block]) -> float:
    """A's speed with the loop over that without, as all trials of `blocks` together say."""
    ratios = []
    for block in blocks:
        logs, slow = np.log(block.frame.step_s), block.frame["options.busy_s"].notna()
        ratios.append(logs[~slow].mean() - logs[slow].mean())
    return float(np.exp(np.mean(ratios)))


def _side(name: str, loop: str) -> dict[str, str]:
    return {"environment": name, "options.busy_s": loop}


def _outcome(
    part: pd.DataFrame,
    baseline: dict[str, str],
    candidate: dict[str, str],
    slow: float,
    truths: tuple[float, float],
) -> Outcome:
    [point] = compare(part, baseline, candidate).points
    interval, value = point.ratio.interval, point.ratio.value
    assert interval is not None and value is not None
    covers, covers_loop = (interval.low <= true <= interval.high for true in truths)
    half_width = (interval.high - interval.low) / 2 / value
    rounds = part["round"].nunique()
    return Outcome(slow, rounds, point.verdict, covers, covers_loop, half_width)


def main() -> None:
    """Measure, print the table, then the targets."""
    parser = argparse.ArgumentParser(description="Whether comparisons tell the truth.")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help=f"at least {FEWEST_BLOCKS}")
    for field in fields(Size):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    parser.add_argument("--results", type=Path, help="keep the records here, and resume")
    chosen = parser.parse_args()
    if chosen.blocks < FEWEST_BLOCKS:
        parser.error(f"--blocks {chosen.blocks}: at least {FEWEST_BLOCKS}")
    with tempfile.TemporaryDirectory(prefix="spbench-validity-") as temporary:
        folder = chosen.results or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        size = Size(chosen.rounds, chosen.steps, chosen.seq_len)
        blocks = record_blocks(folder, chosen.blocks, size)
    frame = pd.concat([block.frame for block in blocks])
    failed = frame[frame.status != "ok"]
    print(f"{len(frame):,} trials, {len(failed)} not ok, {(frame.noisy != '').sum()} noisy")
    step_ms, trial_s = 1e3 * frame.step_s.median(), frame.duration_s.median()
    print(f"median step {step_ms:.2f} ms, trial {trial_s:.2f} s")
    percent = 100 * scatter(blocks)
    print(f"the ratio of one round between two names of A scatters by {percent:.1f} %")
    for slowdown in SLOWDOWNS:
        same = [block for block in blocks if block.slowdown == slowdown]
        loop = np.mean([block.loop_s / block.plain_step_s for block in same])
        cost = 1 / true_ratio(same) - 1
        print(f"a loop of {100 * loop:.2f} % makes a step {100 * cost:.2f} % longer")
    for apart, deviation in by_distance(blocks).items():
        print(f"  {apart} trials apart: {100 * deviation:.1f} %")
    found = pd.DataFrame(outcomes(blocks))
    table(found)
    check(found[found.rounds == size.rounds])


def scatter(blocks: Sequence[Block]) -> float:
    """Standard deviation of the logarithm of one round's ratio between two names of A."""
    variances = []
    for block in blocks:
        for _, same in block.frame.groupby(block.frame["options.busy_s"].fillna(0.0)):
            logs = np.log(same.pivot(index="round", columns="environment", values="step_s"))
            variances.append((logs[NAMES[0]] - logs[NAMES[1]]).var())
    return float(np.sqrt(np.mean(variances)))


def by_distance(blocks: Sequence[Block]) -> dict[int, float]:
    """The same, by how many trials the two are apart in time; their true ratio is 1."""
    squares: dict[int, list[float]] = {}
    for block in blocks:
        frame = block.frame.assign(place=block.frame.groupby("round").started.rank())
        for _, pair in frame.groupby(["round", frame["options.busy_s"].fillna(0.0)]):
            log = np.log(pair.step_s.iloc[1] / pair.step_s.iloc[0])
            squares.setdefault(int(abs(pair.place.diff().iloc[1])), []).append(log**2)
    return {apart: float(np.sqrt(np.mean(squares[apart]))) for apart in sorted(squares)}


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
    """The targets, for comparisons of single blocks at all their rounds."""
    targets = Targets()

    def share(of: pd.Series) -> float:
        return 100 * float(of.mean())

    same = found[found.slowdown == 0]
    targets.check("A/A: no difference seen", share(same.verdict == NO_DIFFERENCE), ">=", 95, "%")
    for slowdown, target in ((0.10, 95), (0.05, 80)):
        slow = found[found.slowdown == slowdown]
        name = f"{100 * slowdown:.0f} % slower: found"
        targets.check(name, share(slow.verdict == SLOWER), ">=", target, "%")
    targets.check("intervals that hold the truth", share(found.covers), ">=", 90, "%")
    print(f"intervals that hold what the loop alone would make: {share(found.covers_loop):.1f} %")
    targets.finish()


if __name__ == "__main__":
    main()
