"""The controller's own time per trial, at the 10th and at the 10,000th recorded trial.

    python -m benchmarks.controller [BLOCKS]

Real sweeps through Hydra, in turn in an almost empty results folder and in one that holds
10,000 records; in place of ranks, a stand-in that answers at once with a record of realistic
size. The time per trial is what lies between two answers (store with fsync, look at what
others wrote, claim, observe the machine, display) plus the trial's share of composing.
Starting up, which in the full folder reads all records, is shown apart.
"""

from __future__ import annotations

import io
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.controller import run as run_module
from bench.controller.run import Run, start
from bench.record import Record
from bench.record_files import RecordWriter
from bench.trial import Trial
from benchmarks.records import template_of
from benchmarks.report import Targets

BLOCKS = 8
TRIALS = 32
"""Per block: 16 configurations of the default experiment, 2 rounds."""
FEW = 10 - TRIALS // 2
MANY = 10_000 - TRIALS // 2


class StandIn:
    """Answers every trial with the same outcome and notes when it was asked and answered."""

    def __init__(self, template: Record) -> None:
        self._template = template
        self.asked: list[float] = []
        self.answered: list[float] = []

    def __call__(self, _interpreter_of: Callable[[Any], Any]) -> StandIn:
        return self

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, trial: Trial, _folder: Path) -> Record:
        """A record of `trial`; making it is not the controller's time."""
        self.asked.append(time.perf_counter())
        identity = {
            "trial_id": trial.id,
            "config": trial.configuration,
            "config_hash": trial.configuration.hash,
            "round": trial.round,
        }
        record = self._template.model_copy(update=identity)
        self.answered.append(time.perf_counter())
        return record

    def gaps(self) -> list[float]:
        """Seconds between an answer and the next question."""
        pairs = zip(self.answered, self.asked[1:], strict=False)
        return [asked - answered for answered, asked in pairs]


class TimedComposer(run_module.Composer):
    """Notes what composing costs."""

    seconds = 0.0

    def configuration(self, overrides: Any) -> Any:
        """As the original."""
        began = time.perf_counter()
        try:
            return super().configuration(overrides)
        finally:
            TimedComposer.seconds += time.perf_counter() - began


def block(folder: Path, template: Record) -> tuple[list[float], float, float]:
    """Sweep in `folder`: seconds between trials, per trial for composing, and until the first."""
    stand_in = StandIn(template)
    run = Run(Console(file=io.StringIO()), stand_in, lambda spec, _report: spec)
    TimedComposer.seconds = 0.0
    began = time.perf_counter()
    start([f"results={folder}", "rounds=2"], run)
    assert len(stand_in.asked) == TRIALS
    return stand_in.gaps(), TimedComposer.seconds / TRIALS, stand_in.asked[0] - began


def filled(folder: Path, count: int, template: Record) -> Path:
    """`folder` with `count` records of other configurations."""
    folder.mkdir()
    writer = RecordWriter(folder)
    writer.path = folder / "records-bench-1.jsonl"
    line = template.model_dump_json()
    with writer.path.open("w") as file:
        for number in range(count):
            file.write(line.replace(template.config_hash, f"{number:016x}") + "\n")
    return folder


def main() -> None:
    """Sweep in turn in both folders, then print the targets."""
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else BLOCKS
    template = template_of(512)
    run_module.Composer = TimedComposer  # type: ignore[misc]
    found: dict[str, list[float]] = {"few": [], "many": []}
    starts: dict[str, list[float]] = {"few": [], "many": []}
    composing: list[float] = []
    with tempfile.TemporaryDirectory(prefix="spbench-controller-") as name:
        numbers = itertools.count()
        many = filled(Path(name, "many"), MANY, template)
        size = sum(path.stat().st_size for path in many.iterdir())
        print(f"{MANY:,} records of {size / MANY:,.0f} bytes; {blocks} blocks of {TRIALS} trials")
        for _ in range(blocks):
            few = filled(Path(name, f"few{next(numbers)}"), max(FEW, 0), template)
            for side, folder in (("few", few), ("many", many)):
                gaps, compose, first = block(folder, template)
                found[side] += gaps
                composing.append(compose)
                starts[side].append(first)
                for path in folder.glob("records-*"):  # back to how it was
                    if path.name != "records-bench-1.jsonl":
                        path.unlink()
    compose = statistics.median(composing)
    times = {side: statistics.median(gaps) + compose for side, gaps in found.items()}
    print(f"composing: {compose * 1e3:.1f} ms per trial")
    for side, count in (("few", "10th"), ("many", "10,000th")):
        gaps = sorted(found[side])
        print(
            f"{count} recorded trial: {times[side] * 1e3:.1f} ms (without composing: quartiles "
            f"{gaps[len(gaps) // 4] * 1e3:.1f} to {gaps[3 * len(gaps) // 4] * 1e3:.1f} ms); "
            f"start-up {statistics.median(starts[side]):.2f} s"
        )
    # Composing is the same on both sides; without it the comparison is the stricter one.
    ratio = statistics.median(found["many"]) / statistics.median(found["few"])
    targets = Targets()
    targets.check("controller time at the 10th trial", times["few"] * 1e3, "<=", 50, "ms")
    targets.check("controller time at the 10,000th trial", times["many"] * 1e3, "<=", 50, "ms")
    targets.check("their difference, without composing", abs(ratio - 1) * 100, "<=", 20, "%")
    targets.finish()


if __name__ == "__main__":
    main()
