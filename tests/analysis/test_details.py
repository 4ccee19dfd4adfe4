"""What sections ask of a record's details: what does not fit is named, and the rest is shown."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from analysis import sections
from analysis.answers import all_answers
from analysis.details import fitting
from analysis.frame import AnalysisError, load
from bench.console import Console
from bench.record import Record
from tests.analysis import test_breakdown, test_capacity, test_collectives, test_compat
from tests.factories import ok, write

RIGHT: dict[str, Callable[[], Record]] = {
    "capacity": lambda: test_capacity.search(1, 2048, 2048),
    "collectives": lambda: test_collectives.record(
        {"nn.a/-/world/contiguous/float32": test_collectives.RAISES},
        listed=test_collectives.LISTED,
        timing=[test_collectives.measured("forward", 1e-3)],
    ),
    "compat": lambda: test_compat.trial(
        "2.2.2", "0.18.6", test_compat.stage(0), test_compat.failing(1)
    ),
    "profile": lambda: ok(scenario="profile", world=2, details=test_breakdown.details()),
}
"""A record of each scenario that has a section."""


def places_in(value: Any, *path: Any) -> list[tuple[Any, ...]]:
    """Where every value of `value` stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[tuple[Any, ...]] = []
    for key, one in inner:
        found.append((*path, key))
        if isinstance(one, (dict, list)):
            found += places_in(one, *path, key)
    return found


def spoilt(details: dict[str, Any], path: tuple[Any, ...], wrong: Any) -> dict[str, Any]:
    """`details` with `wrong` at `path`; GONE takes the key away."""
    found = deepcopy(details)
    parent: Any = found
    for key in path[:-1]:
        parent = parent[key]
    if wrong is GONE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = wrong
    return found


GONE = object()
WRONG = (GONE, None, "text", -1, 2**70, 1.5, True, [], {}, [None], ["text"], {"a": None})


def drawn(folder: Path) -> str:
    """What the terminal shows of the sections, and what they answer."""
    page, frame = io.StringIO(), load(folder)
    sections.show(folder, frame, Console(file=page, width=160))
    said = [line for one in all_answers(folder, frame) for line in one.sentences]
    return "\n".join([page.getvalue(), *said])


def test_a_record_of_every_scenario_with_a_section_fits(tmp_path: Path) -> None:
    write(tmp_path, *(make() for make in RIGHT.values()), ok())
    frame = load(tmp_path)
    assert fitting(tmp_path, frame).misfits == []
    assert set(sections.found(frame)) == set(RIGHT)


@pytest.mark.parametrize("scenario", RIGHT)
def test_no_value_in_details_ends_a_section(scenario: str, tmp_path: Path) -> None:
    """Every key of a record's details becomes each wrong value: left out and named, or shown."""
    right = json.loads(RIGHT[scenario]().model_dump_json())
    variants = [
        {**right, "details": spoilt(right["details"], path, wrong)}
        for path in places_in(right["details"])
        for wrong in WRONG
    ]
    lines = [json.dumps({**one, "round": number}) for number, one in enumerate(variants)]
    (tmp_path / "records-a.jsonl").write_text("\n".join([*lines, ""]))
    frame = load(tmp_path)
    assert len(frame) == len(variants)
    [made] = sections.sentences(tmp_path, frame)
    assert made.broken == ""
    assert len(variants) / 3 < len(made.troubles) < len(variants)
    sections.found(frame)[scenario].show(
        tmp_path, fitting(tmp_path, frame).frame, Console(file=io.StringIO(), width=160)
    )


@pytest.mark.parametrize(
    ("scenario", "path", "why"),
    [
        ("capacity", ("attempts", 0, "peak_bytes"), "attempts[0].peak_bytes is text, not a whole"),
        ("collectives", ("cases", 0, "outcomes"), "cases[0].outcomes is text, not a list"),
        ("compat", ("stages",), "stages is text, not a list"),
        ("profile", ("breakdown", 1, "seconds"), "breakdown[1].seconds is text, not a mapping"),
    ],
)
def test_the_record_that_does_not_fit_is_named_and_the_others_are_shown(
    scenario: str, path: tuple[Any, ...], why: str, tmp_path: Path
) -> None:
    lines = []
    for number in (0, 1):
        record = json.loads(RIGHT[scenario]().model_dump_json())
        record["round"] = number
        if number:
            record["details"] = spoilt(record["details"], path, "text")
        lines.append(json.dumps(record))
    (tmp_path / "records-a.jsonl").write_text(f"{lines[0]}\n")
    alone = drawn(tmp_path)
    (tmp_path / "records-a.jsonl").write_text("\n".join([*lines, ""]))
    said = drawn(tmp_path)
    named = f"Left out of {scenario}: records-a.jsonl, line 2: details.{why}"
    assert said.count(named) == 2
    assert set(alone.split()) <= set(said.split())


def test_a_trace_whose_record_does_not_fit_is_refused(tmp_path: Path) -> None:
    from analysis.breakdown import one

    test_breakdown.folder_with(tmp_path, overlap="text")
    with pytest.raises(AnalysisError, match=r"cannot be shown: details\.overlap is text"):
        one(tmp_path)
