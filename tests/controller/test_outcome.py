"""Statuses from the server's lines alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.controller import deaths
from bench.controller.outcome import Flight, version_mismatch
from bench.controller.reports import failure_line, is_out_of_memory, worst_gradient
from bench.record import RankError, Status
from bench.record_files import rows_file
from bench.rows import RowsWriter
from bench.trial import EnvironmentSpec
from bench.worker.metrics.gradient import Noise, judge
from tests import factories


def raised(
    rank: int, kind: str = "RuntimeError", message: str = "no", phase: str = "forward"
) -> Any:
    where = {"rank": rank, "phase": phase, "step": 0}
    error = {"type": kind, "message": message, "traceback": "…", **where}
    return {"op": "rank", "rank": rank, "outcome": "raised", "error": error}


def finished(rank: int, **result: Any) -> Any:
    fields = {"samples": None, "memory": None, "gradient": None, **result}
    return {"op": "rank", "rank": rank, "outcome": "finished", "result": fields}


def exited(rank: int, signal: int | None = None, exit_code: int | None = None) -> Any:
    return {"op": "exited", "rank": rank, "signal": signal, "exit_code": exit_code}


def relayed(line: Any) -> Any:
    """`line` as the server relays it."""
    if line["op"] != "rank":
        return line
    text = json.dumps(line)
    return {"op": "rank", "rank": line["rank"], "report": text, "bytes": len(text)}


def take(flight: Flight, line: Any) -> None:
    """Have `flight` take a line as the server relays it."""
    flight.take(relayed(line))


def outcome(*lines: Any, world: int = 2) -> dict[str, Any]:
    flight = Flight(world)
    flight.oom_kills_before = 1 << 60  # no kill of this machine can count
    for line in lines:
        take(flight, line)
    return flight.fields()


@pytest.mark.parametrize(("shared", "valid"), [(True, False), (False, True)])
def test_ranks_that_share_a_gpu_make_timings_invalid(shared: bool, valid: bool) -> None:
    seen = {"shared_gpu": shared, "variables": {"NCCL_HOSTID": "spbench-1"}}
    line = {**raised(1), "observed": seen}
    assert outcome(line, world=2)["timings_valid"] is valid
    assert "timings_valid" not in outcome(raised(1), world=2)


def test_provenance_is_what_the_first_rank_that_reported_saw() -> None:
    flight = Flight(3)
    assert _seen(flight) == (None, None)
    take(flight, {**finished(2), "observed": {"variables": {"A": "2"}, "sdpa_kernel": "math"}})
    take(flight, {**finished(1), "observed": {"variables": {"A": "1"}, "sdpa_kernel": "flash"}})
    assert _seen(flight) == ({"A": "1"}, "flash")


def _seen(flight: Flight) -> tuple[Any, Any]:
    return flight.reports.observed("variables"), flight.reports.observed("sdpa_kernel")


def test_ranks_say_how_they_told_deepspeed() -> None:
    flight = Flight(2)
    assert flight.reports.observed("mesh_setup") is None
    take(flight, {**finished(0), "observed": {"mesh_setup": "megatron"}})
    assert flight.reports.observed("mesh_setup") == "megatron"


def test_ok_needs_every_rank() -> None:
    flight = Flight(2)
    take(flight, finished(0))
    take(flight, exited(0, exit_code=0))
    assert not flight.over()
    take(flight, finished(1))
    take(flight, exited(1, exit_code=0))
    assert flight.over()
    assert not flight.failed()
    assert flight.fields()["status"] is Status.OK


def test_a_killed_rank_outweighs_what_its_peers_raised() -> None:
    found = outcome(exited(1, signal=11), raised(0, message="Connection closed by peer"))
    assert found["status"] is Status.CRASH
    assert found["reason"] == "rank 1 ended by SIGSEGV without a result"
    assert len(found["errors"]) == 1


def test_a_rank_that_leaves_after_its_report_is_no_crash() -> None:
    found = outcome(raised(0), exited(0, exit_code=0), finished(1), exited(1, exit_code=0))
    assert found["status"] is Status.ERROR


def test_out_of_memory_on_one_rank_names_the_trial() -> None:
    found = outcome(raised(0, "torch.OutOfMemoryError", "CUDA out of memory"), raised(1))
    assert found["status"] is Status.OOM


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("torch.cuda.OutOfMemoryError", "", True),
        ("MemoryError", "", True),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory: you tried", True),
        ("RuntimeError", "std::bad_alloc", True),
        ("IndexError", "tuple index out of range", False),
        ("RuntimeError", "Connection closed by peer", False),
    ],
)
def test_what_counts_as_out_of_memory(kind: str, message: str, expected: bool) -> None:
    error = RankError(rank=0, type=kind, message=message, traceback="", phase="forward")
    assert is_out_of_memory(error) is expected


def test_failure_line_speaks_for_the_most_common_error() -> None:
    lines = [raised(1, "IndexError", "out of range", "backward")]
    lines += [raised(0), raised(2, "IndexError", "out of range", "backward")]
    errors = [RankError(**line["error"]) for line in lines]
    assert failure_line(errors) == "IndexError in backward on ranks 1, 2: out of range"


@pytest.mark.parametrize(
    ("torch", "deepspeed", "text"),
    [
        ("2.13.0+cpu", "0.18.2", None),
        ("2.13.0", "0.18.3", "deepspeed 0.18.3 instead of 0.18.2"),
        ("2.13.1+cu130", "0.18.2", "torch 2.13.1+cu130 instead of 2.13.0"),
    ],
)
def test_version_mismatch(torch: str, deepspeed: str, text: str | None) -> None:
    spec = EnvironmentSpec(name="e", torch="2.13.0", deepspeed="0.18.2")
    found = version_mismatch(spec, {"torch": torch, "deepspeed": deepspeed})
    assert (found is None) if text is None else (text in str(found))


def test_the_worst_rank_speaks_and_disagreement_is_said() -> None:

    reference = {"w": np.array([1.0, 1.0])}
    noise = Noise(1e-7, {"w": 1e-7})
    ranks = [
        judge([("w", factor * reference["w"])], reference, noise, reference_loss=1.0, rank=rank)
        for rank, factor in enumerate((1.0, 2.0))
    ]
    for rank in ranks:
        rank.loss = 3.0
    found = worst_gradient(ranks)
    assert found is not None
    assert (found.rank, found.verdict, found.ranks_agree, found.loss) == (1, "scaled", False, 3.0)
    same = worst_gradient([ranks[0]] * 2)
    assert same is not None
    assert (same.verdict, same.ranks_agree) == ("match", True)


def test_the_worst_is_the_worst_verdict_and_not_the_largest_error() -> None:
    """Three times too long is off by 2, and right but for its length."""
    ranks = [
        factories.gradient(verdict="scaled", scale=3.0, relative_error=2.0, rank=0),
        factories.gradient(verdict="wrong", scale=1.0, relative_error=0.1, rank=1),
        factories.gradient(verdict="wrong", scale=1.0, relative_error=0.2, rank=2),
        factories.gradient(verdict="match", scale=1.0, relative_error=0.0, rank=3),
    ]
    found = worst_gradient(ranks)
    assert found is not None
    assert (found.rank, found.verdict) == (2, "wrong")


@pytest.mark.parametrize(
    "second",
    [
        pytest.param({"verdict": "wrong"}, id="another verdict"),
        pytest.param({"scale": 1.01}, id="another scale"),
        pytest.param({"scale": None}, id="no scale"),
        pytest.param({"ranks_agree": False}, id="it says so itself"),
        pytest.param(None, id="the same"),
    ],
)
def test_ranks_agree_where_verdict_and_scale_are_the_same(second: dict[str, Any] | None) -> None:
    ranks = [factories.gradient(), factories.gradient(**(second or {}))]
    found = worst_gradient(ranks)
    assert found is not None
    assert found.ranks_agree == (second is None)


@pytest.mark.parametrize(("kills", "status"), [(7, Status.CRASH), (8, Status.OOM)])
def test_an_out_of_memory_kill_counts_if_the_killer_struck_since_the_launch(
    monkeypatch: pytest.MonkeyPatch, kills: int, status: Status
) -> None:
    """Seven processes were killed since this machine started, before the trial."""
    monkeypatch.setattr(deaths, "oom_kills", lambda: 7)
    trial, reference = Flight(2), Flight(1)
    monkeypatch.setattr(deaths, "oom_kills", lambda: kills)
    for flight in (trial, reference):
        flight.take(exited(0, signal=9))
    assert trial.fields()["status"] is status
    failure = reference.reference_failure(60.0)
    assert failure is not None and failure[0] is status


def test_the_first_rank_to_end_tells() -> None:
    found = outcome(exited(1, signal=11), exited(0, signal=9))
    assert found["reason"] == "rank 1 ended by SIGSEGV without a result (then rank 0 by SIGKILL)"
    assert (found["status"], found["first_ended"]) == (Status.CRASH, 1)


def test_rows_outlive_the_rank_that_noted_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deaths, "oom_kills", lambda: 7)  # since this machine started
    rows_file(tmp_path, 0).write_text('{"rank": 0, "case": "a"}\n')
    rows_file(tmp_path, 1).write_text('{"rank": 1, "case": "a"}\n{"rank": 1, "ca')  # killed
    flight = Flight(2, tmp_path)
    for line in (finished(0, details={"headline": "one"}), exited(1, signal=9)):
        take(flight, line)
    flight.collect_rows()
    fields = flight.fields()
    assert fields["status"] is Status.CRASH
    assert fields["details"]["rows"] == [{"rank": 0, "case": "a"}, {"rank": 1, "case": "a"}]


def test_details_are_those_of_rank_0_and_the_rows_of_all(tmp_path: Path) -> None:
    rows_file(tmp_path, 1).write_text('{"rank": 1, "case": "a"}\n')
    flight = Flight(2, tmp_path)
    for line in (finished(0, details={"headline": "one"}), finished(1), exited(0), exited(1)):
        take(flight, line)
    flight.collect_rows()
    assert flight.fields()["details"] == {
        "headline": "one",
        "rows": [{"rank": 1, "case": "a"}],
    }


def test_of_too_many_rows_the_record_says_how_many_are_left_out(tmp_path: Path) -> None:
    writer = RowsWriter(rows_file(tmp_path, 0))
    for case in "abcd":  # of 1.5 MB each: 2 MB hold one
        writer.append(json.dumps({"rank": 0, "case": case, "text": "x" * 1_500_000}).encode())
    flight = Flight(1, tmp_path)
    take(flight, finished(0))
    flight.collect_rows()
    details = flight.fields()["details"]
    assert [row["case"] for row in details["rows"]] == ["a", "d"]
    assert details["rows_left_out"] == 2


def test_a_rank_whose_loss_is_not_finite_is_not_left_out_of_the_mean() -> None:
    """In a report, as in a record, such a loss is null."""
    ranks = [factories.gradient(loss=2.0), factories.gradient(loss=4.0)]
    found = worst_gradient(ranks)
    assert found is not None and found.loss == 3.0
    found = worst_gradient([ranks[0], factories.gradient(loss=None)])
    assert found is not None and found.loss is None


def test_a_maker_of_the_reference_that_reports_nonsense_has_failed() -> None:
    flight = Flight(1)
    flight.take({"op": "rank", "rank": 0, "report": "nonsense", "bytes": 8})
    take(flight, finished(0))
    failure = flight.reference_failure(60.0)
    assert failure is not None
    status, message, error = failure
    assert (status, error.rank, error.message) == (Status.ERROR, 0, message)
    assert "nonsense" in message
