"""The controller's own time per trial, at the 10th and at the 10,000th recorded trial.

    python -m benchmarks.controller [BLOCKS] [--records N]

Real sweeps through Hydra, in turn in an almost empty results folder and in one that holds
10,000 records (or as many as `--records` says); in place of ranks, a stand-in that answers at once
with a record of realistic size. The time per trial is what lies between two answers (store with
fsync, look at what others wrote, claim, observe the machine, display) plus the trial's share of
composing.
Starting up, which in the full folder reads all records, is shown apart.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Optional

from bench.console import Console
from bench.controller import run as run_module
from bench.controller.interpreter import Interpreter, InterpreterOf
from bench.controller.provenance import MachineWatch
from bench.controller.run import Run, start
from bench.record import Record
from bench.record_files import RecordWriter
from bench.trial import EnvironmentSpec, Trial
from benchmarks.records import template_of
from benchmarks.report import Targets

BLOCKS = 8
TRIALS = 32
"""Per block: 16 configurations of the default experiment, 2 rounds."""
RECORDS = 10_000


class StandIn:
    """Answers every trial with the same outcome and notes when it was asked and answered."""

    def __init__(self, template: Record) -> None:
        self._template = template
        self.asked: list[float] = []
        self.answered: list[float] = []

    def __call__(self, _interpreter_of: InterpreterOf, _watch: MachineWatch) -> StandIn:
        return self

    def __enter__(self) -> StandIn:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        pass

    def leave(self, key: str) -> None:
        """Nothing runs in any environment."""

    def run(
        self,
        trial: Trial,
        folder: Path,  # noqa: ARG002
        note: Callable[[str], None],  # noqa: ARG002
    ) -> Record:
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


def present(spec: EnvironmentSpec, _report: Callable[[str], None]) -> Interpreter:
    """An interpreter that is there; nothing is launched in it."""
    here = Path(sys.executable)
    return Interpreter(spec=spec, python=here, extensions=here.parent, preload=here)


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
    run = Run(Console(file=io.StringIO()), stand_in, present)
    TimedComposer.seconds = 0.0
    began = time.perf_counter()
    start([f"results={folder}", "rounds=2"], run)
    assert len(stand_in.asked) == TRIALS
    return stand_in.gaps(), TimedComposer.seconds / TRIALS, stand_in.asked[0] - began


def filled(folder: Path, count: int, template: Record) -> Path:
    """`folder` with `count` records of other configurations, none if that is negative."""
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
    parser = argparse.ArgumentParser(description="The controller's own time per trial.")
    parser.add_argument("blocks", nargs="?", type=int, default=BLOCKS)
    parser.add_argument("--records", type=int, default=RECORDS, help="in the full folder")
    chosen = parser.parse_args()
    held = {"10th": 10 - TRIALS // 2, f"{chosen.records:,}th": chosen.records - TRIALS // 2}
    few, many = held
    template = template_of(512)
    run_module.Composer = TimedComposer  # type: ignore[misc]
    found: dict[str, list[float]] = {few: [], many: []}
    starts: dict[str, list[float]] = {few: [], many: []}
    composing: list[float] = []
    with tempfile.TemporaryDirectory(prefix="spbench-controller-") as name:
        full = filled(Path(name, "many"), held[many], template)
        size = sum(path.stat().st_size for path in full.iterdir()) / held[many]
        print(f"{held[many]:,} records of {size:,.0f} bytes; ", end="")
        print(f"{chosen.blocks} blocks of {TRIALS} trials")
        for number in range(chosen.blocks):
            sparse = filled(Path(name, f"few{number}"), held[few], template)
            for side, folder in ((few, sparse), (many, full)):
                gaps, compose, first = block(folder, template)
                found[side] += gaps
                composing.append(compose)
                starts[side].append(first)
                for path in folder.glob("records-*"):  # back to how it was
                    if path.name != "records-bench-1.jsonl":
                        path.unlink()
    report(found, starts, statistics.median(composing))


def report(
    found: dict[str, list[float]], starts: dict[str, list[float]], compose: float
) -> NoReturn:
    """Print what was `found` at few and at many records [s], and the targets."""
    print(f"composing: {compose * 1e3:.1f} ms per trial")
    times = {side: statistics.median(gaps) + compose for side, gaps in found.items()}
    for side, unsorted in found.items():
        gaps = sorted(unsorted)
        print(
            f"{side} recorded trial: {times[side] * 1e3:.1f} ms (without composing: quartiles "
            f"{gaps[len(gaps) // 4] * 1e3:.1f} to {gaps[3 * len(gaps) // 4] * 1e3:.1f} ms); "
            f"start-up {statistics.median(starts[side]):.2f} s"
        )
    # Composing is the same on both sides; without it the comparison is the stricter one.
    few, many = (statistics.median(gaps) for gaps in found.values())
    targets = Targets()
    for side, seconds in times.items():
        targets.check(f"controller time at the {side} trial", seconds * 1e3, "<=", 50, "ms")
    name = "their difference, without composing"
    targets.check(name, abs(many / few - 1) * 100, "<=", 20, "%")
    targets.finish()


if __name__ == "__main__":
    main()
