"""What a rank reports is taken part by part; what no record can hold is named."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from bench.controller.outcome import Flight
from bench.controller.rank_report import read
from bench.record import Status
from tests.controller.test_outcome import exited, finished, raised, take
from tests.factories import gradient, samples

SAMPLES = samples(1, [0.5, 0.5]).model_dump()
MEMORY = {"rank": 1, "peak_bytes": 10, "baseline_bytes": 0}
COUNT = {"rank": 1, "phase": "forward", "collective": "all_reduce", "calls": 1, "bytes": 8}
WHOLE: dict[str, Any] = {
    "samples": SAMPLES,
    "memory": MEMORY,
    "gradient": gradient().model_dump(),
    "gradient_reason": None,
    "clipping": {"threshold": 0.0},
    "sketch": "sketches/a.npz",
    "sketch_version": 1,
    "collectives": [COUNT],
    "details": {"headline": "one", "list": [1, {"a": None}]},
    "first_loss": [1.5, 64.0],
}


def line(**fields: Any) -> str:
    return json.dumps({"rank": 1, "outcome": "finished", "result": {}, **fields})


def test_a_whole_report_has_no_fault() -> None:
    report, faults = read(1, line(result=WHOLE, device="cpu", warnings=["w"]))
    assert faults == []
    assert report is not None and report.finished
    assert report.result["samples"].model_dump() == SAMPLES
    assert set(report.result) == set(WHOLE)
    assert report.noted == {"device": "cpu", "warnings": ["w"]}


@pytest.mark.parametrize(
    ("part", "value", "why"),
    [
        ("samples", [1, 2], "Input should be a valid dictionary"),
        ("samples", {**SAMPLES, "step_s": None}, "step_s: Input should be a valid list, not None"),
        ("samples", {**SAMPLES, "step_s": [0.5, math.nan]}, "step_s.1: Input should be a valid nu"),
        ("samples", {**SAMPLES, "step_s": ["0.5", 0.5]}, "step_s.0: Input should be a valid numb"),
        ("samples", {**SAMPLES, "step_s": [0.5]}, "phases_s.forward: 2 times for 1 steps"),
        ("samples", {**SAMPLES, "step_s": [0.5, 0.0]}, "step_s[1] is 0.0, not a number from 1e-12"),
        ("samples", {**SAMPLES, "step_s": [0.5, 1e-226]}, "step_s[1] is 1e-226, not a number fr"),
        ("samples", {**SAMPLES, "warmup_s": [-1.0]}, "warmup_s[0] is -1.0, not a number from 0"),
        ("samples", {**SAMPLES, "warmup_s": [1e300]}, "a time of 1e+300 s"),
        ("samples", {**SAMPLES, "rank": 0}, "it is of rank 0"),
        ("samples", {**SAMPLES, "more": 1}, "more: Extra inputs are not permitted, not 1"),
        ("memory", "much", "Input should be a valid dictionary"),
        ("memory", {**MEMORY, "peak_bytes": 1.5}, "peak_bytes: Input should be a valid integer"),
        ("memory", {**MEMORY, "peak_bytes": -1}, "peak_bytes is -1, not a whole number from 0"),
        ("memory", {**MEMORY, "rank": True}, "rank: Input should be a valid integer, not True"),
        ("gradient", {"verdict": "fine"}, "verdict: Input should be 'match', 'scaled'"),
        ("gradient", {}, "verdict: Field required"),
        ("gradient_reason", 1, "Input should be a valid string, not 1"),
        ("clipping", {"threshold": math.inf}, "threshold: Input should be a valid number, not N"),
        ("sketch", ["a"], "Input should be a valid string, not ['a']"),
        ("sketch_version", "1", "Input should be a valid integer, not '1'"),
        ("collectives", COUNT, "Input should be a valid list"),
        ("collectives", [COUNT, {**COUNT, "rank": 7}], "it is of rank 7"),
        ("details", [1], "Input should be a valid dictionary, not [1]"),
        ("details", {"headline": 3}, "headline: 3 is no text"),
        ("first_loss", [1.5], "List should have at least 2 items"),
        ("first_loss", "no", "Input should be a valid list, not 'no'"),
    ],
)
def test_a_part_that_no_record_can_hold_is_named_and_the_others_are_kept(
    part: str, value: Any, why: str
) -> None:
    report, [fault] = read(1, line(result={**WHOLE, part: value}))
    begin = f"the scenario returned {part} that no record can hold: "
    assert fault.rank == 1 and fault.text.startswith(begin + why)
    assert report is not None and set(report.result) == set(WHOLE) - {part}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\\xff\\xfe", "it reported a line that is no JSON: '"),
        ("", "it reported a line that is no JSON: ''"),
        ("[" * 100_000, "it reported a line that is no JSON: '[[["),
        ('{"rank": 1, "n": ' + "9" * 5000 + "}", "it reported a line that is no JSON: "),
        ("[1]", "it reported a line that is no mapping: [1]"),
        ('{"outcome": "finished"}', "it reported as rank None"),
        (line(rank=0), "it reported as rank 0"),
        (line(rank=True), "it reported as rank True"),
        (line(outcome="done"), "it reported the outcome 'done'"),
        (line(outcome=[]), "it reported the outcome []"),
        ('{"rank": 1}', "it reported the outcome None"),
        (line(result={"n": 2**64}), "it reported a line that cannot be recorded: result.n: a who"),
    ],
)
def test_a_line_that_is_no_report_is_named(text: str, why: str) -> None:
    report, [fault] = read(1, text)
    assert report is None
    assert fault.text.startswith(why)


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"result": None}, ["it reported result that is no mapping: None"]),
        (
            {"result": {"sample": 1}},
            ["the scenario returned 'sample'; a record takes samples, memory, gradient, "],
        ),
        ({"warnings": "w"}, ["the rank noted warnings that no record can hold: Input should be a"]),
        ({"observed": [1]}, ["it reported observed that is no mapping: [1]"]),
        ({"observed": {"shared_gpu": 1}}, ["the rank observed shared_gpu that no record can hold"]),
        ({"outcome": "raised", "error": "no"}, ["it reported error that is no mapping: 'no'"]),
        ({"faults": ["as the rank says", 3]}, ["as the rank says", "3"]),
    ],
)
def test_what_else_is_wrong_with_a_report(fields: Any, faults: list[str]) -> None:
    report, found = read(1, line(**fields))
    assert report is not None
    for fault, expected in zip(found, faults, strict=True):
        assert fault.text.startswith(expected)


def test_an_error_is_told_as_far_as_it_goes() -> None:
    report, faults = read(1, line(outcome="raised", error={"type": 3, "message": "m", "step": "x"}))
    assert (report is not None and report.error is not None) and not faults
    error = report.error
    assert (error.rank, error.type, error.message) == (1, "(type not told)", "m")
    assert (error.phase, error.step) == ("(phase not told)", None)


def flown(*lines: Any, world: int = 2) -> dict[str, Any]:
    flight = Flight(world)
    for one in [*lines, *(exited(rank, exit_code=0) for rank in range(world))]:
        take(flight, one)
    return flight.fields()


def test_a_trial_with_a_fault_is_an_error_that_keeps_what_was_found() -> None:
    broken = {"samples": [1], "details": {"headline": "one"}}
    fields = flown(finished(0, **broken), finished(1, **broken))
    assert fields["status"] is Status.ERROR
    assert fields["reason"].startswith("ranks 0, 1: the scenario returned samples that no record")
    assert [error.rank for error in fields["errors"]] == [0, 1]
    assert fields["details"] == {"headline": "one"}
    assert "samples" not in fields and "gradient" not in fields
    assert [one.outcome for one in fields["ranks"]] == ["finished"] * 2


def test_ranks_that_returned_different_numbers_of_steps_are_an_error() -> None:
    parts = [samples(rank, [0.5] * (2 + rank)).model_dump() for rank in range(2)]
    fields = flown(*(finished(rank, samples=parts[rank]) for rank in range(2)))
    assert fields["status"] is Status.ERROR
    assert fields["reason"] == (
        "rank 1: the scenario returned samples of 3 steps, and of 2 on rank 0"
    )


def test_what_a_rank_raised_comes_before_faults_of_others() -> None:
    fields = flown(finished(0, samples=[1]), raised(1))
    assert fields["reason"] == "RuntimeError in forward on rank 1: no"
    assert [(error.rank, error.type) for error in fields["errors"]] == [
        (1, "RuntimeError"),
        (0, "UnusableReport"),
    ]


def test_a_line_that_is_no_report_ends_the_trial_as_error() -> None:
    flight = Flight(2)
    flight.take({"op": "rank", "rank": 1, "report": "nonsense", "bytes": 8})
    assert flight.failed() and flight.cause_known()
    flight.take(exited(1, exit_code=0))
    fields = flight.fields()
    assert fields["status"] is Status.ERROR
    assert fields["reason"] == "rank 1: it reported a line that is no JSON: 'nonsense'"


def test_a_signal_outweighs_a_line_that_is_no_report() -> None:
    flight = Flight(1)
    flight.take({"op": "rank", "rank": 0, "report": "nonsense", "bytes": 8})
    flight.take(exited(0, signal=40))
    fields = flight.fields()
    assert fields["status"] is Status.CRASH
    assert fields["reason"] == "rank 0 ended by signal 40 without a result"
    assert fields["errors"][0].message == "it reported a line that is no JSON: 'nonsense'"


def test_a_second_report_is_a_fault() -> None:
    fields = flown(finished(0), finished(1), finished(1))
    assert fields["reason"] == "rank 1: it reported a second time"


def test_a_report_beyond_the_bound_is_a_fault() -> None:
    flight = Flight(1)
    flight.take({"op": "rank", "rank": 0, "report": "{", "bytes": (256 << 20) + 1})
    assert flight.fields()["reason"] == (
        "rank 0: it reported 268,435,457 bytes; at most 268,435,456 are taken"
    )


def test_bytes_that_arrive_are_progress() -> None:
    flight = Flight(1)
    beat = {"rank": 0, "count": 3, "step": None, "phase": "report", "received": 10}
    assert flight.beat([beat])
    assert not flight.beat([beat])
    assert flight.beat([{**beat, "received": 11}])


def test_losses_that_are_not_finite_are_not_left_out() -> None:
    flight = Flight(2)
    for rank, pair in enumerate(([math.nan, 64.0], [1.0, 64.0])):
        take(flight, finished(rank, first_loss=pair))
    first, second = flight.reports.first_losses()
    assert math.isnan(first[0]) and second == [1.0, 64.0]


def test_only_modules_that_can_be_imported_are_learnt() -> None:
    flight = Flight(1)
    names = ["a.b_c", "bad\0name", "x..y", "-m", "ä"]
    take(flight, {**finished(0), "late_imports": names})
    assert flight.reports.late_imports() == ["a.b_c", "ä"]
