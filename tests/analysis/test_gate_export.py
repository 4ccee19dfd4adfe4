"""Gates for continuous integration: workflow commands and JUnit XML."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from analysis.compare import compare
from analysis.gate import Gates
from analysis.gate_export import as_github, as_junit, suite_of, suite_of_trials
from bench.record import Status
from tests.analysis.sides import TWICE, UPGRADE, WORKAROUND, broken, frame_of, timed
from tests.factories import failed, ok

GATES = Gates(slower=0.05, wrong=True, error=True)


def three_points(folder: Path):
    """Right at 512 tokens, twice too large at 1,024, broken at 2,048."""
    records = [one for n in (512, 1024, 2048) for one in timed(WORKAROUND, 1.0, seq_len=n)]
    records += timed(UPGRADE, 1.0, seq_len=512)
    records += timed(UPGRADE, 1.0, seq_len=1024, gradient=TWICE)
    records += broken(UPGRADE, seq_len=2048)
    return suite_of(compare(frame_of(folder, records), WORKAROUND, UPGRADE), GATES)


def test_github_gets_an_error_for_each_objection_and_one_notice(tmp_path: Path) -> None:
    commands = as_github([three_points(tmp_path)]).splitlines()
    errors = [line for line in commands if line.startswith("::error ")]
    assert [line.partition("::")[2].partition("::")[0] for line in errors] == [
        "error title=spbench --fail-if-wrong",
        "error title=spbench --fail-if-slower 5%25",
        "error title=spbench --fail-if-wrong",
        "error title=spbench --fail-on-error",
    ]
    assert errors[0].endswith(
        "::seq_len=1024: torch-2.13 with all_gather has a gradient that is ×2 in 3 of 3 trials, "
        "judged by the exact float64 reference (replica_mean)"
    )
    [notice] = [line for line in commands if line.startswith("::notice ")]
    assert "%0A" in notice and len(commands) == 5


def test_properties_and_messages_are_escaped(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, [ok(gradient=TWICE)])
    suite = suite_of_trials("50 %, a: b", frame, Gates(wrong=True))
    named = suite.__class__("50 %, a: b", suite.cases, ("one %\r\ntwo",))
    assert as_github([named]).splitlines()[-1] == (
        r"::notice title=spbench%3A 50 %25%2C a%3A b::one %25\r%0Atwo"
    )


def test_junit_has_a_case_for_each_point(tmp_path: Path) -> None:
    root = ElementTree.fromstring(as_junit([three_points(tmp_path)]))
    [suite] = root.findall("testsuite")
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "2",
        "errors": "0",
        "skipped": "0",
    }
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    assert list(cases) == ["seq_len=512", "seq_len=1024", "seq_len=2048"]
    assert cases["seq_len=512"].find("failure") is None
    failure = cases["seq_len=1024"].find("failure")
    assert failure is not None and failure.get("type") == "--fail-if-wrong"
    seen = cases["seq_len=1024"].findtext("system-out") or ""
    assert seen.endswith("baseline: gradient right; candidate: gradient ×2")


def test_junit_of_trials_knows_errors_and_skipped_cases(tmp_path: Path) -> None:
    hostile = "<b>&\x07"
    records = [
        ok(),
        failed(loss="local"),
        failed(Status.UNSUPPORTED, seq_len=511, reason=f"odd {hostile}"),
    ]
    suite = suite_of_trials("folder", frame_of(tmp_path, records), Gates(error=True))
    root = ElementTree.fromstring(as_junit([suite]))
    [found] = root.findall("testsuite")
    assert (found.get("errors"), found.get("failures"), found.get("skipped")) == ("1", "0", "1")
    skipped = found.find("testcase/skipped")
    assert skipped is not None and skipped.get("message") == r"odd <b>&\x07"


def test_what_is_said_of_all_points_is_a_case_of_its_own(tmp_path: Path) -> None:
    records = [one for n in (512, 1024) for one in broken(WORKAROUND, seq_len=n)]
    records += [one for n in (512, 1024) for one in timed(UPGRADE, 1.0, seq_len=n)]
    comparison = compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE)
    root = ElementTree.fromstring(as_junit([suite_of(comparison, Gates(slower=0.05))]))
    names = [case.get("name") for case in root.iter("testcase")]
    assert names == ["seq_len=512", "seq_len=1024", "as a whole"]
