"""Do wrong overrides or damaged records ever do more than be refused in one line?

    python -m benchmarks.fuzz                                    # 20,000 of each
    python -m benchmarks.fuzz --overrides 1000 --records 0 --seed 7

`fuzz_overrides` gives random lists of overrides to `spbench sweep`, up to its plan; `fuzz_records`
gives damaged records files to every verb and to resume. Nothing is trained. A fault is a traceback,
an exit code other than 0 to 3, more than 5 s, a control character that is printed, a refusal that
is not one line, a file made outside the results folder, and a line of which resume and readers
think differently.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks import fuzz_overrides, fuzz_records
from benchmarks.fuzzing import SLOW_S, Tally
from benchmarks.report import Targets

BLOCK = 250
"""Commands that one process runs from one seed."""
MOST_SHOWN = 20
"""Faults that are printed in full."""

Attack = Callable[[int, int], Tally]


def main() -> None:
    """Run both halves, print what they counted; exit code 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overrides", type=int, default=20_000, help="lists of overrides")
    parser.add_argument("--records", type=int, default=20_000, help="records files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    asked = parser.parse_args()
    targets = Targets()
    halves: tuple[tuple[str, Attack, int], ...] = (
        ("lists of overrides", fuzz_overrides.attack, asked.overrides),
        ("records files", fuzz_records.attack, asked.records),
    )
    for name, attack, count in halves:
        if count:
            began = time.monotonic()
            tally = attacked(attack, count, asked.seed, asked.jobs)
            _show(name, count, tally, time.monotonic() - began)
            _check(name, tally, targets)
    targets.finish()


def attacked(attack: Attack, count: int, seed: int, jobs: int) -> Tally:
    """What `count` attacks from `seed` gave, by blocks: the same for any number of `jobs`."""
    blocks = [(min(BLOCK, count - start), _seed(seed, start)) for start in range(0, count, BLOCK)]
    tally = Tally()
    if jobs == 1:
        for block in blocks:
            tally.add(attack(*block))
        return tally
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for found in pool.map(attack, *zip(*blocks, strict=True)):
            tally.add(found)
    return tally


def _seed(seed: int, start: int) -> int:
    return seed * 1_000_000 + start


def _show(name: str, count: int, tally: Tally, wall_s: float) -> None:
    ends = ", ".join(f"{many:,} with {code}" for code, many in sorted(tally.exits.items()))
    commands = sum(tally.exits.values())
    print(f"{count:,} {name}, {commands:,} commands in {wall_s:.0f} s; exit codes: {ends}")
    for fault in tally.faults[:MOST_SHOWN]:
        print(f"  {fault.command[:2000]}\n    {fault.why}")


def _check(name: str, tally: Tally, targets: Targets) -> None:
    targets.check(f"{name}: slowest command", tally.slowest_s, "<=", SLOW_S, "s")
    targets.check(f"{name}: tracebacks, other exit codes", len(tally.tracebacks), "<=", 0)
    targets.check(f"{name}: control characters, long refusals", len(tally.printed), "<=", 0)
    targets.check(f"{name}: files outside", len(tally.outside), "<=", 0)
    targets.check(f"{name}: ledger and readers differ", len(tally.differing), "<=", 0)


if __name__ == "__main__":
    main()
