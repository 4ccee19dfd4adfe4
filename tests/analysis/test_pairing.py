"""Pairs come from one host, one round, one code: what is no pair is said, not compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.compare import NO_NUMBER, NOT_PAIRED, against, compare
from analysis.frame import load
from analysis.gate import Gates, objections
from analysis.pairing import Match, Rule, between, matches, of_one_kind, results
from analysis.sentences import sentences
from bench.identity import Identity
from bench.record import MachineProvenance, Record
from tests.analysis.sides import frame_of
from tests.factories import machine, ok

LEFT, RIGHT = {"loss": "all_gather"}, {"loss": "local"}
CODE = {"attention": "1" * 16, "loss": "2" * 16, "worker": "3" * 16}
LOCAL = {**CODE, "loss": "4" * 16}
NEW_WORKER = {"worker": "9" * 16}


def on(host: str, cores: int = 2) -> MachineProvenance:
    return machine().model_copy(update={"hostname": host, "cores": cores})


def rounds(
    loss: str, step_s: float, code: dict[str, str] | None, count: int = 3, **fields: Any
) -> list[Record]:
    return [ok(round=r, loss=loss, step_s=step_s, code=code, **fields) for r in range(count)]


def both(left: float, right: float, **fields: Any) -> list[Record]:
    """Both sides, of the same shared code, each with the code of its own aggregation."""
    return [*rounds("all_gather", left, CODE, **fields), *rounds("local", right, LOCAL, **fields)]


def test_the_role_that_is_compared_may_differ(tmp_path: Path) -> None:
    found = compare(frame_of(tmp_path, both(1.0, 0.5)), LEFT, RIGHT)
    [point] = found.points
    assert (point.ratio.value, point.ratio.rounds, point.apart) == (pytest.approx(2.0), 3, "")
    assert found.axes == ()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        pytest.param({**LOCAL, **NEW_WORKER}, "the code differs (worker)", id="worker"),
        pytest.param(None, "the code is unknown on one side", id="unknown"),
    ],
)
def test_shared_code_must_be_the_same(
    tmp_path: Path, code: dict[str, str] | None, why: str
) -> None:
    trials = [*rounds("all_gather", 1.0, CODE), *rounds("local", 0.5, code)]
    found = compare(frame_of(tmp_path, trials), LEFT, RIGHT)
    [point] = found.points
    assert (point.verdict, point.apart, point.ratio.value) == (NOT_PAIRED, why, None)
    assert (point.phases_s, point.memory_ratio, found.overall.value) == ({}, None, None)
    assert f"The sides are not paired: {why}." in sentences(found)
    said = [one.line for one in objections(found, Gates(slower=0.05))]
    assert said == [f"local is not paired with the baseline: {why}"]


def test_machines_of_two_classes_are_not_paired(tmp_path: Path) -> None:
    trials = [
        *rounds("all_gather", 1.0, CODE, machine=on("a")),
        *rounds("local", 0.5, LOCAL, machine=on("b", cores=64)),
    ]
    [point] = compare(frame_of(tmp_path, trials), LEFT, RIGHT).points
    assert point.apart == "the machines differ (CPU, 2 cores | CPU, 64 cores)"


def test_a_pair_is_of_one_host(tmp_path: Path) -> None:
    trials = [
        *rounds("all_gather", 1.0, CODE, machine=on("a")),
        *rounds("local", 0.5, LOCAL, machine=on("b")),
    ]
    [point] = compare(frame_of(tmp_path, trials), LEFT, RIGHT).points
    assert (point.verdict, point.apart) == (NOT_PAIRED, "no host ran both (a | b)")


def test_pairs_of_several_hosts_count_together(tmp_path: Path) -> None:
    """Host b is four times slower; paired across hosts the ratio would be 8 or 1/2."""
    trials = [*both(1.0, 0.5, machine=on("a")), *both(4.0, 2.0, machine=on("b"))]
    [point] = compare(frame_of(tmp_path, trials), LEFT, RIGHT).points
    assert (point.ratio.rounds, point.ratio.value) == (6, pytest.approx(2.0))
    assert point.ratio.interval is not None
    assert point.ratio.interval.low == pytest.approx(2.0)
    assert point.phases_s["step"] == pytest.approx((-0.5 - 2.0) / 2)


def test_each_class_of_machines_has_its_row(tmp_path: Path) -> None:
    trials = [*both(1.0, 0.5, machine=on("a")), *both(1.0, 2.0, machine=on("b", cores=64))]
    found = compare(frame_of(tmp_path, trials), LEFT, RIGHT)
    assert [(p.axes["variant"], p.ratio.value) for p in found.points] == [
        ("2 cores", pytest.approx(2.0)),
        ("64 cores", pytest.approx(0.5)),
    ]
    # neither mean nor sum of both: the overall ratio is of one class alone
    assert found.overall.rounds == 3 and found.left_out == 1
    assert found.overall.value == pytest.approx(0.5)
    assert "1 point is of other code, versions or machines, and not in the overall ratio." in (
        sentences(found)
    )


def test_classes_are_joined_on_request(tmp_path: Path) -> None:
    trials = [*both(1.0, 0.5, machine=on("a")), *both(1.0, 2.0, machine=on("b", cores=64))]
    frame_of(tmp_path, trials)
    found = compare(load(tmp_path, across_machines=True), LEFT, RIGHT)
    [point] = found.points
    assert (point.ratio.rounds, point.ratio.value) == (6, pytest.approx(1.0))
    assert any("Machines of several classes are put together" in one for one in sentences(found))


def test_code_of_two_states_is_compared_state_by_state(tmp_path: Path) -> None:
    trials = [
        *both(1.0, 0.5),
        *rounds("all_gather", 2.0, {**CODE, **NEW_WORKER}, attempt=1),
        *rounds("local", 0.5, {**LOCAL, **NEW_WORKER}, attempt=1),
    ]
    found = compare(frame_of(tmp_path, trials), LEFT, RIGHT)
    assert {p.axes["variant"]: p.ratio.value for p in found.points} == {
        "worker 333333": pytest.approx(2.0),
        "worker 999999": pytest.approx(4.0),
    }


def test_a_result_without_partner_stands_beside_the_latest_of_the_other_side(
    tmp_path: Path,
) -> None:
    trials = [*rounds("all_gather", 9.0, None), *both(1.0, 0.5, attempt=1)]
    found = compare(frame_of(tmp_path, trials), LEFT, RIGHT)
    assert {p.axes["variant"]: p.verdict for p in found.points} == {
        "baseline: code unknown": NOT_PAIRED,
        "baseline: code known": "faster",
    }
    assert found.overall.value == pytest.approx(2.0) and found.left_out == 0
    # there is a pair at this point, so the old result is no objection
    assert objections(found, Gates(slower=0.05)) == []


def test_the_overall_ratio_is_of_one_code_over_points(tmp_path: Path) -> None:
    """Two lengths with the old worker's code (ratio 2), one with the new (ratio 1/2)."""
    trials = [*both(1.0, 0.5, seq_len=512), *both(1.0, 0.5, seq_len=1024)]
    for loss, step_s, code in (("all_gather", 1.0, CODE), ("local", 2.0, LOCAL)):
        trials += rounds(loss, step_s, {**code, **NEW_WORKER}, seq_len=2048)
    found = compare(frame_of(tmp_path, trials), LEFT, RIGHT)
    assert [p.ratio.value for p in found.points] == [pytest.approx(x) for x in (2.0, 2.0, 0.5)]
    assert found.overall.value == pytest.approx(2.0)
    assert found.left_out == 1


def test_a_side_without_a_number_is_not_called_unpaired(tmp_path: Path) -> None:
    from tests.factories import failed

    trials = [*rounds("all_gather", 1.0, CODE), failed(loss="local", code=None)]
    [point] = compare(frame_of(tmp_path, trials), LEFT, RIGHT).points
    assert point.verdict == NO_NUMBER


def test_versions_must_agree_unless_environments_are_compared() -> None:
    from analysis.identities import disagreement

    left = Identity("unknown", "torch 2.4.1, deepspeed 0.18.2", "CPU, 2 cores")
    right = Identity("unknown", "torch 2.6.0, deepspeed 0.18.2", "CPU, 2 cores")
    assert disagreement(left, right, ["loss"]) == "the versions differ (torch 2.4.1 | torch 2.6.0)"
    assert disagreement(left, right, ["environment", "loss"]) == ""


def test_a_folder_of_before_is_compared_whatever_code_it_ran(tmp_path: Path) -> None:
    """Of the folder of today the latest result counts, and hosts are no part of a pair."""
    before = frame_of(tmp_path / "a", rounds("local", 1.0, LOCAL, machine=on("a")))
    edited = {**LOCAL, **NEW_WORKER}
    now = [
        *rounds("local", 9.0, LOCAL, machine=on("b")),
        *rounds("local", 0.5, edited, attempt=1, started="2025-02-01", machine=on("b")),
    ]
    found = against(before, frame_of(tmp_path / "b", now), {}, {})
    assert [(p.ratio.value, p.ratio.rounds) for p in found.points] == [(pytest.approx(2.0), 3)]


def test_folders_of_two_classes_of_machines_are_paired_on_request_only(tmp_path: Path) -> None:
    frame_of(tmp_path / "a", rounds("local", 1.0, LOCAL, machine=on("a")))
    frame_of(tmp_path / "b", rounds("local", 0.5, LOCAL, machine=on("b", cores=64)))
    folders = (tmp_path / "a", tmp_path / "b")
    [point] = against(*map(load, folders), {}, {}).points
    assert (point.verdict, point.ratio.value) == (NOT_PAIRED, None)
    assert point.apart == "the machines differ (CPU, 2 cores | CPU, 64 cores)"
    joined = against(*(load(folder, across_machines=True) for folder in folders), {}, {})
    assert [point.ratio.value for point in joined.points] == [pytest.approx(2.0)]
    assert joined.cautions


LOSSES = Rule({"loss"}, across_machines=False)
ENVIRONMENTS = Rule({"environment"}, across_machines=False)


def test_results_are_in_the_order_in_which_they_last_ran(tmp_path: Path) -> None:
    trials = [
        *rounds("local", 1.0, LOCAL, started="2025-03-01"),
        *rounds("local", 1.0, {**LOCAL, **NEW_WORKER}, attempt=1, started="2025-01-01"),
        *rounds("local", 1.0, None, attempt=2, started="2025-02-01"),
    ]
    months = [one.started.max().month for one in results(frame_of(tmp_path, trials))]
    assert months == [1, 2, 3]


def test_a_result_between_pairs_with_both_sides_and_is_the_latest(tmp_path: Path) -> None:
    """The baseline's code lacks a role that the candidate has, in which one between differs."""
    left = frame_of(tmp_path / "left", rounds("all_gather", 1.0, CODE))
    right = frame_of(tmp_path / "right", rounds("local", 1.0, {**LOCAL, "precision": "5" * 16}))
    odd = frame_of(tmp_path / "odd", rounds("all_gather", 1.0, {**CODE, "precision": "6" * 16}))
    early, late = (
        frame_of(tmp_path / name, rounds("all_gather", 1.0, CODE)) for name in ("early", "late")
    )
    match = Match(left, right, "")
    assert between(match, [odd], ENVIRONMENTS, LOSSES) is None
    assert between(match, [early, late, odd], ENVIRONMENTS, LOSSES) is late


def test_what_is_no_pair_is_of_no_kind(tmp_path: Path) -> None:
    left = frame_of(tmp_path / "left", rounds("all_gather", 1.0, CODE))
    right = frame_of(tmp_path / "right", rounds("local", 1.0, LOCAL))
    odd = frame_of(tmp_path / "odd", rounds("local", 1.0, {**LOCAL, **NEW_WORKER}))
    found = {
        (512,): Match(left, right, ""),
        (1024,): Match(left, odd, "the code differs (worker)"),
        (2048,): Match(left, odd, "the code differs (worker)"),
    }
    assert of_one_kind(found, LOSSES, ["seq_len"]) == [(512,)]


def test_what_has_no_partner_stands_beside_the_latest(tmp_path: Path) -> None:
    """Two pairs, of an old and of a new worker, and a baseline whose code is not known."""

    def side(loss: str, code: dict[str, str] | None) -> Any:
        name = f"{loss} {code and code['worker']}"
        return frame_of(tmp_path / name, rounds(loss, 1.0, code))

    old, new = (side("local", {**LOCAL, **more}) for more in ({}, NEW_WORKER))
    befores = [side("all_gather", {**CODE, **more}) for more in ({}, NEW_WORKER)]
    unknown = side("all_gather", None)
    found = matches({(): [unknown, *befores]}, {(): [old, new]}, LOSSES).values()
    assert [one.candidate is new for one in found if one.baseline is unknown] == [True]
    assert [one.candidate is old for one in found if one.baseline is befores[0]] == [True]
    assert len(found) == 3
