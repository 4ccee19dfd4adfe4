"""A process of a trial has a report whatever its scenario returned or raised."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from bench.worker import report

UNDECODABLE = os.fsdecode(b"no file \xff")
WHERE = {"phase": "forward", "step": 3, "device_free_bytes": None}


class Mute(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Wordless(Exception):
    """Its text is none."""

    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Leaves(Exception):
    """Its text ends the process."""

    def __str__(self) -> str:
        raise SystemExit(3)


class Nameless(type):
    """Classes without a name."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class Unnamed(Exception, metaclass=Nameless):
    """A class without a name."""


def told(line: bytes) -> dict[str, Any]:
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    found: dict[str, Any] = json.loads(line.decode("ascii"))
    return found


def caught(exception: BaseException) -> BaseException:
    """`exception` with a traceback."""
    try:
        raise exception
    except BaseException as raised:  # noqa: BLE001
        return raised


@pytest.mark.parametrize(
    ("exception", "kind", "message"),
    [
        (RuntimeError(UNDECODABLE), "RuntimeError", "no file \\xff"),
        (Mute(), f"{__name__}.Mute", "(no text: ValueError)"),
        (Wordless(), f"{__name__}.Wordless", "(no text: TypeError)"),
        (Leaves(), f"{__name__}.Leaves", "(no text: SystemExit)"),
        (Unnamed("why"), "(no text: RuntimeError)", "why"),
        (SystemExit(3), "SystemExit", "3"),
    ],
    ids=["undecodable", "mute", "wordless", "leaves", "unnamed", "exit"],
)
def test_every_exception_is_told(exception: BaseException, kind: str, message: str) -> None:
    found = told(report.raised(1, caught(exception), WHERE, warnings=[UNDECODABLE], device="cpu"))
    error = found.pop("error")
    assert (error["type"], error["message"]) == (kind, message)
    assert isinstance(error["traceback"], str) and error["traceback"]
    assert (error["rank"], error["phase"], error["step"]) == (1, "forward", 3)
    assert found == {
        "rank": 1,
        "outcome": "raised",
        "warnings": ["no file \\xff"],
        "device": "cpu",
        "faults": [],
    }


def test_where_it_was_raised_need_not_be_known() -> None:
    found = told(report.raised(0, caught(Mute()), {"phase": object(), "step": 10**30}))
    assert found["error"]["message"] == "(no text: ValueError)"
    assert set(found["error"]) == {"rank", "type", "message", "traceback"}
    assert [text.partition(" that ")[0] for text in found["faults"]] == [
        "the rank noted phase",
        "the rank noted step",
    ]


def test_texts_of_exceptions_are_cut() -> None:
    found = told(report.raised(0, caught(RuntimeError("x" * 10**6)), WHERE))["error"]
    assert (len(found["message"]), len(found["traceback"])) == (4000, 20000)


@pytest.mark.parametrize(
    ("result", "kept", "faults"),
    [
        ({}, {}, []),
        ({"details": {"a": (1, float("nan"))}}, {"details": {"a": [1, None]}}, []),
        (None, {}, ["the scenario returned None, which is no mapping"]),
        ([1], {}, ["the scenario returned [1], which is no mapping"]),
        (
            {"details": {"a": {1}}, "memory": None},
            {"memory": None},
            ["the scenario returned details that no record can hold: details.a: JSON has no set"],
        ),
        (
            {b"key": 1},
            {},
            ["the scenario returned b'key' that no record can hold: the key b'key' is no text"],
        ),
    ],
    ids=["nothing", "plain", "None", "list", "a set", "a key of bytes"],
)
def test_what_a_scenario_returned_is_kept_but_for_what_is_named(
    result: Any, kept: Any, faults: list[str]
) -> None:
    found = told(report.finished(2, result, device="cpu", late_imports=["a"]))
    assert found == {
        "rank": 2,
        "outcome": "finished",
        "result": kept,
        "faults": faults,
        "device": "cpu",
        "late_imports": ["a"],
    }


def test_what_a_rank_noted_cannot_hide_who_it_is() -> None:
    found = told(report.finished(2, {}, observed={"shared_gpu": {1}}))
    assert found["faults"] == [
        "the rank noted observed that no record can hold: observed.shared_gpu: JSON has no set"
    ]


def test_a_report_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_REPORT_BYTES", 20_000)
    found = told(report.finished(0, {"details": {"a": "x" * 30_000}}))
    assert found["result"] == {}
    assert found["faults"][0].endswith("bytes; at most 20,000 are taken")
    found = told(report.raised(0, caught(Mute()), WHERE, warnings=["x" * 30_000]))
    assert found["error"]["message"] == "(no text: ValueError)"
    assert "warnings" not in found
