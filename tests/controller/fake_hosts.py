"""Stands in for `bench.controller.hosts.Hosts`: scheduling is under test, not torch."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.console import Console
from bench.controller.run import Run, start
from bench.record import Record, Status
from bench.trial import Trial


class FakeHosts:
    """Answers every trial at once with a record; `outcome` may change it or raise."""

    def __init__(self, outcome: Callable[[Trial, Record], Record] | None = None) -> None:
        self.outcome = outcome
        self.trials: list[Trial] = []
        self.closed = 0

    def __call__(self, interpreter_of: Callable[[Any], Any], watch: object = None) -> FakeHosts:
        self.interpreter_of = interpreter_of
        return self

    def __enter__(self) -> FakeHosts:
        return self

    def __exit__(self, *_error: object) -> None:
        self.closed += 1

    def leave(self, key: str) -> None:
        """No server runs."""

    def run(self, trial: Trial, folder: Path, note: Callable[[str], None]) -> Record:
        self.trials.append(trial)
        record = Record.of(trial, Status.OK, "2026-01-01T00:00:00.000+00:00", 0.5)
        return self.outcome(trial, record) if self.outcome else record


def run_sweep(
    *overrides: str, hosts: FakeHosts | None = None, provide: Callable[..., Any] | None = None
) -> tuple[Run, FakeHosts, str]:
    """Run a sweep as the command line does, with fake hosts; its output is the third."""
    hosts = hosts or FakeHosts()
    text = io.StringIO()
    run = Run(Console(file=text), hosts, provide or (lambda spec, report: spec.name))
    start(overrides, run)
    return run, hosts, text.getvalue()


if __name__ == "__main__":  # a sweep of its own: python -m tests.controller.fake_hosts LOG …
    launched = Path(sys.argv[1])

    def slowly(trial: Trial, record: Record) -> Record:
        with launched.open("a") as log:
            log.write(f"{trial.id}\n")
        time.sleep(0.05)
        return record

    run_sweep(*sys.argv[2:], hosts=FakeHosts(slowly))
