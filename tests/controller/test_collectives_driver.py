"""A collective that hangs or dies is marked, and the others run in fresh ranks."""

from __future__ import annotations

import subprocess
import sys
from signal import SIGSEGV
from typing import Any

import pytest

from bench.controller.drivers import collectives
from bench.controller.outcome import Flight
from bench.record import RankOutcome, Record, Status
from bench.trial import Trial
from tests.factories import STARTED, configuration

CASES = ("nn.a/-/world/contiguous/float32", "nn.b/-/world/contiguous/float32")


def case(name: str) -> dict[str, Any]:
    collective, variant, group, layout, dtype = name.split("/")
    return {
        "case": name,
        "collective": collective,
        "variant": "" if variant == "-" else variant,
        "group": group,
        "layout": layout,
        "dtype": dtype,
        "awaited": "",
    }


def begin(rank: int, name: str) -> dict[str, Any]:
    return {"rank": rank, "event": "begin", "ranks": [0, 1], **case(name)}


def end(rank: int, name: str, status: str = "ok", **found: Any) -> dict[str, Any]:
    return {"rank": rank, "event": "end", "status": status, **found, **case(name)}


class Launches:
    """Answers launches with prepared outcomes, and keeps the trials."""

    def __init__(self, *prepared: dict[str, Any]) -> None:
        self.prepared, self.trials = list(prepared), list[Trial]()
        self.notes: list[str] = []

    def __call__(self, trial: Trial) -> Record:
        self.trials.append(trial)
        fields = {"status": Status.OK, **self.prepared.pop(0)}
        rows = [{"rank": 0, "event": "plan", "cases": 2}, *fields.pop("rows", [])]
        fields["details"] = {"rows": rows}
        return Record.of(trial, started=STARTED, duration_s=2.0, **fields)

    def run(self, **options: Any) -> Record:
        config = configuration(scenario="collectives", options=options, world=2, sp=2)
        trial = Trial(configuration=config, round=0)
        record = collectives.run(trial, self, self.notes.append)
        assert (record.trial_id, record.config) == (trial.id, config)
        return record


def outcomes(record: Record) -> dict[str, Any]:
    return {one["case"]: one["outcomes"] for one in record.details["cases"]}


def test_one_launch_where_nothing_fails() -> None:
    rows = [f(r, name) for name in CASES for r in (0, 1) for f in (begin, end)]
    launches = Launches({"rows": rows})
    record = launches.run()
    assert record.status is Status.OK
    assert record.details["headline"] == "2 ok"
    assert outcomes(record) == {name: [{"ranks": [0, 1], "status": "ok"}] for name in CASES}
    assert launches.notes == ["collectives: 2 of 2 cases, launch 1"]
    assert launches.trials[0].configuration.gradient_check == "off"


def test_a_hang_and_a_crash_are_marked_and_the_rest_runs() -> None:
    a, b = CASES
    crashed = {
        "status": Status.CRASH,
        "reason": "rank 1 ended by SIGSEGV without a result",
        "rows": [begin(0, a), begin(1, a)],
        "ranks": [
            RankOutcome(rank=0, outcome="interrupted", phase="nn.a"),
            RankOutcome(rank=1, outcome="killed", phase="nn.a", signal=11),
        ],
    }
    hung = {
        "status": Status.HANG,
        "reason": "no progress for 30 s",
        "rows": [begin(0, b), begin(1, b), end(1, b, "error", type="ValueError", message="no")],
        "ranks": [RankOutcome(rank=0, outcome="interrupted", phase="nn.b")],
    }
    launches = Launches(crashed, hung, {})
    record = launches.run(skip="nn.c/*")
    assert record.status is Status.OK
    assert record.errors == []
    assert record.duration_s == 6.0
    found = outcomes(record)
    assert [(one["ranks"], one["status"]) for one in found[a]] == [([0], "lost"), ([1], "crash")]
    assert found[a][1]["message"] == "its process ended by SIGSEGV"
    assert [(one["ranks"], one["status"]) for one in found[b]] == [([0], "hang"), ([1], "error")]
    skipped = [trial.configuration.options["skip"] for trial in launches.trials]
    assert skipped == [["nn.c/*"], ["nn.c/*", a], ["nn.c/*", a, b]]


@pytest.mark.parametrize(
    ("status", "signal", "found"),
    [(Status.HANG, 6, "hang"), (Status.HANG, 11, "crash"), (Status.CRASH, 6, "crash")],
)
def test_a_rank_that_nccls_watchdog_ends_hangs(status: Status, signal: int, found: str) -> None:
    a, b = CASES
    ended = {
        "status": status,
        "rows": [begin(0, a), begin(1, a)],
        "ranks": [
            RankOutcome(rank=rank, outcome="killed", phase="nn.a", signal=signal) for rank in (0, 1)
        ],
    }
    record = Launches(ended, {"rows": [f(r, b) for r in (0, 1) for f in (begin, end)]}).run()
    assert [(one["ranks"], one["status"]) for one in outcomes(record)[a]] == [([0, 1], found)]


@pytest.mark.parametrize(
    ("number", "manner"), [(int(SIGSEGV), "SIGSEGV"), (40, "signal 40"), (None, "exit code 3")]
)
def test_a_case_is_told_by_what_its_process_ended(number: int | None, manner: str) -> None:
    """A real process, whose end comes the way that a rank's does."""
    last_words = "sys.exit(3)" if number is None else f"os.kill(os.getpid(), {number})"
    code = subprocess.run([sys.executable, "-c", f"import os, sys; {last_words}"]).returncode
    a, b = CASES
    flight = Flight(2)
    signal, exit_code = (-code, None) if code < 0 else (None, code)
    flight.take({"op": "exited", "rank": 1, "signal": signal, "exit_code": exit_code})
    fields = flight.fields()
    died = {name: fields[name] for name in ("status", "reason", "ranks")}
    record = Launches({**died, "rows": [begin(1, a)]}, {"rows": [begin(0, b), end(0, b)]}).run()
    assert fields["reason"] == f"rank 1 ended by {manner} without a result"
    [found] = outcomes(record)[a]
    assert (found["status"], found["message"]) == ("crash", f"its process ended by {manner}")


def test_ranks_that_fail_outside_any_case_end_it() -> None:
    record = Launches({"status": Status.ERROR, "reason": "ImportError in setup"}).run()
    assert record.status is Status.ERROR
    assert record.reason == "ImportError in setup"


def test_ranks_that_saw_the_same_are_named_together() -> None:
    a = CASES[0]
    rows = [
        begin(0, a),
        begin(1, a),
        end(0, a, "wrong gradient", gradient={"relative_error": 1.0, "scale": 2.0}),
        end(1, a, "wrong gradient", gradient={"relative_error": 1.0, "scale": 2.0}),
    ]
    record = Launches({"rows": rows}).run()
    [outcome] = outcomes(record)[a]
    assert (outcome["ranks"], outcome["gradient"]["scale"]) == ([0, 1], 2.0)
    assert record.details["headline"] == "1 wrong gradient"


def test_bandwidth_is_a_launch_of_its_own() -> None:
    rows = [f(r, name) for name in CASES for r in (0, 1) for f in (begin, end)]
    timed = {"rank": 0, "event": "timing", "collective": "nn.all_reduce"}
    launches = Launches({"rows": rows}, {"rows": [timed]})
    record = launches.run(timing=True)
    assert record.details["timing"] == [timed]
    assert [one.configuration.options["timing"] for one in launches.trials] == [False, True]
    assert launches.trials[1].configuration.options["skip"] == ["*"]
