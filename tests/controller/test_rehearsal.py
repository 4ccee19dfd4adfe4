"""A trial in which ranks import what nobody knew is launched once more, and only once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.controller import hosts as hosts_module
from bench.controller.hosts import REHEARSALS, Hosts
from bench.record import Record, Status
from bench.trial import Configuration, Trial
from tests.factories import configuration, failed, ok

SAID = "ranks imported 2 modules during the trial"


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each launch gives: a record, and the modules that its ranks imported; told in turn."""
    planned: list[Any] = []

    class Planned:
        interpreter = None
        in_steps = None

        def __init__(self, server: object) -> None:
            self.learnt: list[str] = []
            planned.append("started")

        def run(self, *_: Any) -> Record:
            record, self.learnt = planned.pop(0)
            assert isinstance(record, Record)
            return record

        def is_running(self) -> bool:
            return True

        def is_stale(self, configuration: Configuration) -> bool:
            return False

        def close(self) -> None:
            planned.append("closed")

    monkeypatch.setattr(hosts_module, "Host", Planned)
    monkeypatch.setattr(hosts_module, "ServerProcess", lambda *_: None)
    monkeypatch.setattr(hosts_module.torch_gpus, "require", lambda *_: None)
    return planned


def limited(status: Status) -> Record:
    """A trial under a memory limit that failed."""
    return failed(status, memory_limit=100 << 20)


def run(folder: Path, *planned: tuple[Record, list[str]], launches: list[Any]) -> Any:
    """The record, what people were told, and what became of servers."""
    launches[:] = planned
    notes: list[str] = []
    with Hosts(lambda _: None) as hosts:  # type: ignore[arg-type, return-value]
        record = hosts.run(Trial(configuration=configuration(), round=0), folder, notes.append)
        return record, notes, list(launches)


def test_what_is_recorded_is_the_second_launch(tmp_path: Path, launches: list[Any]) -> None:
    first, second = (ok(), ["torch.a", "torch.b"]), (ok(round=1), [])
    record, notes, servers = run(tmp_path, first, second, launches=launches)
    assert (record.round, record.noisy) == (1, [])
    [note] = notes
    assert note.startswith("rehearsal, ") and note.endswith(f" s: {SAID}; again without that")
    assert servers == ["started", "closed", "started"]


def test_one_module_is_one(tmp_path: Path, launches: list[Any]) -> None:
    _, [note], _ = run(tmp_path, (ok(), ["torch.a"]), (ok(), []), launches=launches)
    assert ": ranks imported 1 module during the trial;" in note


def test_without_imports_nothing_is_rehearsed(tmp_path: Path, launches: list[Any]) -> None:
    record, notes, servers = run(tmp_path, (ok(), []), launches=launches)
    assert (record.round, record.noisy, notes, servers) == (0, [], [], ["started"])


def test_imports_of_the_second_launch_are_said(tmp_path: Path, launches: list[Any]) -> None:
    """The machine was quiet all the same: the trial is not `noisy`."""
    both = [(ok(round=index), ["torch.a", "torch.b"]) for index in range(2)]
    record, notes, _ = run(tmp_path, *both, launches=launches)
    assert (record.round, record.noisy) == (1, [])
    assert notes[1:] == [f"{SAID}, which its record names: late_imports"]


def test_a_trial_that_failed_is_not_run_again(tmp_path: Path, launches: list[Any]) -> None:
    record, notes, _ = run(tmp_path, (failed(), ["torch.a", "torch.b"]), launches=launches)
    assert (record.status, record.noisy, notes) == (Status.ERROR, [], [])


def test_memory_that_imports_took_ends_no_trial(tmp_path: Path, launches: list[Any]) -> None:
    """What ranks import counts against `memory_limit`: a capacity search would stop too early."""
    first = limited(Status.OOM), ["torch.a", "torch.b"]
    record, notes, servers = run(tmp_path, first, (ok(round=1), []), launches=launches)
    assert (record.status, record.round) == (Status.OK, 1)
    assert len(notes) == 1 and notes[0].startswith("rehearsal, ")
    assert servers == ["started", "closed", "started"]


@pytest.mark.parametrize("status", [Status.OOM, Status.ERROR])
def test_what_is_too_large_all_the_same_ends(
    tmp_path: Path, launches: list[Any], status: Status
) -> None:
    """Each launch may get further, and import more; an import itself may say another thing."""
    many = [(limited(status), [f"torch.{index}"]) for index in range(REHEARSALS + 1)]
    record, notes, _ = run(tmp_path, *many, launches=launches)
    assert (record.status, len(notes)) == (status, REHEARSALS + 1)
    assert notes[-1].endswith("which its record names: late_imports")


def test_memory_without_a_limit_is_no_matter_of_imports(
    tmp_path: Path, launches: list[Any]
) -> None:
    record, notes, _ = run(tmp_path, (failed(Status.OOM), ["torch.a"]), launches=launches)
    assert (record.status, notes) == (Status.OOM, [])
