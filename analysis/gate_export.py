"""What gates found, for continuous integration: GitHub's workflow commands, and JUnit XML.

Formats: https://docs.github.com/actions/reference/workflow-commands-for-github-actions and the
schema of Jenkins' xUnit plugin, which all readers of JUnit's reports take.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import pandas as pd

from analysis.comparison import NO_NUMBER, Comparison, Point
from analysis.gate import (
    ERROR,
    Gates,
    Objection,
    configurations,
    objections,
    objections_to,
    place_of,
)
from analysis.gradients import Gradients, gradients_of
from analysis.sentences import label, sentences
from bench.printable import printable
from bench.record import Status

WHOLE = "as a whole"
"""The case for what is said of no single point."""


@dataclass(frozen=True)
class Case:
    """One point, or one configuration: what was seen, and what speaks against it."""

    name: str
    seen: str
    objections: tuple[Objection, ...] = ()
    skipped: str = ""
    """Why there is nothing to judge; empty where there is."""


@dataclass(frozen=True)
class Suite:
    """The cases of one comparison, or of one folder."""

    name: str
    cases: tuple[Case, ...]
    sentences: tuple[str, ...] = ()


def suite_of(comparison: Comparison, gates: Gates) -> Suite:
    """A case per point of `comparison`, and one for what is said of all of them."""
    name = f"{label(comparison.candidate)} against {label(comparison.baseline)}"
    found = objections(comparison, gates)
    cases = [_case(point, found) for point in comparison.points]
    return Suite(name, _with_whole(cases, found), tuple(sentences(comparison)))


def suite_of_trials(name: str, frame: pd.DataFrame, gates: Gates) -> Suite:
    """A case per configuration of `analysis.frame.load`'s frame."""
    found = objections_to(frame, gates)
    cases = []
    for place, trials in configurations(frame):
        counts = trials.status.value_counts()
        ends = ", ".join(f"{status} {count}" for status, count in counts.items())
        refused = (trials.status == Status.UNSUPPORTED.value).all()
        cases.append(
            Case(
                place,
                f"{ends}; {_worth(gradients_of(trials))}",
                tuple(one for one in found if one.place == place),
                str(trials.reason.iloc[0]) if refused else "",
            )
        )
    return Suite(name, _with_whole(cases, found))


def as_github(suites: Iterable[Suite]) -> str:
    """An `::error` for each objection, a `::notice` with the sentences of each comparison."""
    lines = []
    for suite in suites:
        for case in suite.cases:
            for one in case.objections:
                lines.append(_command("error", f"spbench {one.gate}", one.line))
        if suite.sentences:
            lines.append(_command("notice", f"spbench: {suite.name}", "\n".join(suite.sentences)))
    return "\n".join(lines)


def as_junit(suites: Sequence[Suite]) -> str:
    """One `testsuite` per comparison, one `testcase` per point."""
    root = ElementTree.Element("testsuites", name="spbench")
    for suite in suites:
        element = ElementTree.SubElement(root, "testsuite", name=printable(suite.name))
        for case in suite.cases:
            _add_case(element, suite.name, case)
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            element.set(name, str(len(element.findall(f"testcase/{tag}"))))
        element.set("tests", str(len(suite.cases)))
        if suite.sentences:
            said = ElementTree.SubElement(element, "system-out")
            said.text = printable("\n".join(suite.sentences))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _case(point: Point, found: Sequence[Objection]) -> Case:
    place = place_of(point)
    ratio = point.ratio
    speed = point.verdict if ratio.value is None else f"{ratio.value:.3f} times: {point.verdict}"
    memory = "" if point.memory_ratio is None else f"; peak memory {point.memory_ratio:.3f} times"
    nothing = point.verdict == NO_NUMBER and not (
        point.baseline.statuses or point.candidate.statuses
    )
    return Case(
        place or WHOLE,
        f"speed {speed}{memory}; baseline: {_worth(point.baseline.gradients)}; "
        f"candidate: {_worth(point.candidate.gradients)}",
        tuple(one for one in found if one.place == place),
        "neither side was run" if nothing else "",
    )


def _with_whole(cases: Sequence[Case], found: Sequence[Objection]) -> tuple[Case, ...]:
    """`cases`, and one more where an objection has no place and no case of its own."""
    apart = tuple(one for one in found if not one.place)
    if not apart or any(case.name == WHOLE for case in cases):
        return tuple(cases)
    return (*cases, Case(WHOLE, "all points together", apart))


def _worth(gradients: Gradients) -> str:
    """`gradient right`, `gradient ×2`, `gradient not compared`."""
    words = {"right": "right", "wrong": gradients.fault, "unchecked": "not compared"}
    return f"gradient {words[gradients.kind]}"


def _add_case(suite: ElementTree.Element, name: str, case: Case) -> None:
    element = ElementTree.SubElement(
        suite, "testcase", classname=printable(name), name=printable(case.name)
    )
    if case.objections:
        # A case has one outcome; an error says that there is no result, a failure that it is bad.
        all_errors = all(one.gate == ERROR for one in case.objections)
        outcome = ElementTree.SubElement(element, "error" if all_errors else "failure")
        outcome.set("type", ", ".join(dict.fromkeys(one.gate for one in case.objections)))
        outcome.set("message", printable("; ".join(one.reason for one in case.objections)))
        outcome.text = printable("\n".join(f"{one.gate}: {one.line}" for one in case.objections))
    elif case.skipped:
        ElementTree.SubElement(element, "skipped", message=printable(case.skipped))
    seen = ElementTree.SubElement(element, "system-out")
    seen.text = printable(case.seen)


def _command(kind: str, title: str, message: str) -> str:
    """A workflow command, escaped as GitHub's own toolkit does."""
    title = _escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{_escaped(message)}"


def _escaped(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\n", "%0A")
