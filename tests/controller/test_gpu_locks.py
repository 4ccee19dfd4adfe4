"""Sweeps side by side and one lock per GPU: real processes, pretended GPUs."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.controller import gpu_locks
from bench.controller.gpu_locks import GpuLocks
from bench.controller.host import Host
from bench.controller.hosts import Hosts
from bench.controller.outcome import Flight
from bench.controller.problem import ControllerProblem
from bench.record import Record, Status
from bench.trial import CommSpec, Trial
from tests.conftest import ROOT, configure
from tests.controller.fake_nvml import FakeNvml

Start = Callable[[str], "Holder"]


class Holder:
    """One process of `tests.controller.lock_holder`."""

    def __init__(self, folder: Path, visible: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.controller.lock_holder", str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": visible},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.says() == "released"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a process that locks the GPUs it is given; all are ended with the test."""
    started: list[Holder] = []

    def one(visible: str) -> Holder:
        started.append(Holder(tmp_path, visible))
        return started[-1]

    yield one
    for holder in started:
        holder.process.kill()
        holder.process.communicate()


def test_a_second_process_waits_says_for_whom_and_goes_on(start: Start) -> None:
    first = start("0")
    assert first.says() == "taken"
    second = start("0")
    assert second.says() == f"waiting for GPU-aaa, held by process {first.pid}"
    first.release()
    assert second.says().startswith("has its GPUs after ")
    assert second.says() == "taken"


def test_a_lock_ends_with_its_process(start: Start) -> None:
    first = start("0")
    assert first.says() == "taken"
    second = start("GPU-aaa")  # the same GPU by another name
    assert second.says().startswith("waiting for GPU-aaa")
    first.process.send_signal(signal.SIGKILL)
    assert second.says().startswith("has its GPUs")


def test_different_gpus_are_used_at_the_same_time(start: Start) -> None:
    assert start("0").says() == "taken"
    assert start("1").says() == "taken"


def test_all_take_them_in_the_same_order(start: Start) -> None:
    second = start("1")
    assert second.says() == "taken"
    both = start("1,0")  # has GPU-aaa before it waits for GPU-bbb
    assert both.says() == f"waiting for GPU-bbb, held by process {second.pid}"
    first = start("0")
    assert first.says() == f"waiting for GPU-aaa, held by process {both.pid}"
    second.release()
    assert both.says().startswith("has its GPUs") and both.says() == "taken"
    both.release()
    assert first.says().startswith("has its GPUs")


def test_instances_of_a_card_are_apart_and_the_whole_card_is_not(start: Start) -> None:
    first, second = start("MIG-ccc"), start("MIG-ddd")
    assert (first.says(), second.says()) == ("taken", "taken")
    same, whole = start("MIG-ccc"), start("0")
    assert same.says() == f"waiting for MIG-ccc, held by process {first.pid}"
    assert whole.says().startswith("waiting for GPU-aaa, held by process ")


def test_a_lock_file_that_is_removed_is_no_second_lock(start: Start, tmp_path: Path) -> None:
    first = start("0")
    assert first.says() == "taken"
    second = start("0")
    assert second.says().startswith("waiting")
    (tmp_path / "spbench-GPU-aaa.lock").unlink()
    first.release()
    assert second.says().startswith("has its GPUs") and second.says() == "taken"
    third = start("0")
    assert third.says() == f"waiting for GPU-aaa, held by process {second.pid}"


def test_every_user_may_lock_the_file(start: Start, tmp_path: Path) -> None:
    assert start("0").says() == "taken"  # under umask 077
    mode = (tmp_path / "spbench-GPU-aaa.lock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o444


def test_a_link_is_not_followed(
    tmp_path: Path, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_locks, "FOLDER", tmp_path)
    (tmp_path / "spbench-GPU-aaa.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        GpuLocks().take(print)
    assert not (tmp_path / "elsewhere").exists()


class StubHost:
    """Stands in for a server whose ranks have the GPUs; tells what was so while they ran."""

    def __init__(self, events: list[Any]) -> None:
        self._events = events
        self.in_steps: Callable[[], None] | None = None
        self.learnt: list[str] = []

    def run(self, trial: Trial, folder: Path, log_name: str) -> Record:
        self._events.append(("run", locked()))
        if self.in_steps is not None:
            self.in_steps()
        return Record.of(trial, Status.OK, "2026-01-01T00:00:00.000+00:00", 0.5)

    def close(self) -> None:
        """Nothing runs."""


class StubWatch:
    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def begin(self) -> None:
        self._events.append(("begin", locked()))

    def in_steps(self) -> None:
        self._events.append("in steps")


def locked() -> bool:
    """Whether the first GPU is locked; another description of the file is like another process."""
    file = gpu_locks._open(gpu_locks.FOLDER / "spbench-GPU-aaa.lock")
    try:
        gpu_locks.fcntl.flock(file, gpu_locks.fcntl.LOCK_EX | gpu_locks.fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


@pytest.mark.parametrize(
    ("comm", "events"),
    [
        ("nccl", [("begin", True), ("run", True), "in steps", ("run", True), "in steps"]),
        ("gloo", [("run", False), "in steps", ("run", False), "in steps"]),
    ],
)
def test_a_trial_has_its_gpus_from_its_first_launch_to_its_end(
    comm: str,
    events: list[Any],
    tmp_path: Path,
    nvml: FakeNvml,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trial of two launches. The machine is watched from the moment that the GPUs are ours."""
    seen: list[Any] = []
    stub = StubHost(seen)
    monkeypatch.setattr(gpu_locks, "FOLDER", tmp_path)
    monkeypatch.setattr(Hosts, "_host", lambda *_: stub)

    def twice(trial: Trial, launch: Callable[[Trial], Record], note: object) -> Record:
        launch(trial)
        return launch(trial)

    monkeypatch.setattr("bench.controller.drivers.find", lambda scenario: twice)
    configuration = configure(world=2, sp=2, comm=CommSpec(name=comm), gradient_check="off")
    with Hosts(lambda spec: None, StubWatch(seen)) as hosts:  # type: ignore[arg-type]
        hosts.run(Trial(configuration=configuration, round=0), tmp_path)
    assert seen == events
    assert not locked()


def test_a_lock_that_cannot_be_opened_is_no_trials_result(
    tmp_path: Path, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_locks, "_open", _refused)
    monkeypatch.setattr(Hosts, "_host", lambda *_: StubHost([]))
    configuration = configure(world=2, sp=2, comm=CommSpec(name="nccl"), gradient_check="off")
    with (
        Hosts(lambda spec: None) as hosts,  # type: ignore[arg-type]
        pytest.raises(ControllerProblem) as told,
    ):
        hosts.run(Trial(configuration=configuration, round=0), tmp_path)
    assert str(told.value) == (
        "/tmp/one: Permission denied: make the lock of a GPU readable for all users, or remove "
        "it, then the same command resumes"
    )


def _refused(path: Path) -> int:
    raise PermissionError(13, "Permission denied", "/tmp/one")


@pytest.mark.parametrize(
    ("phases", "told"),
    [(["forward", "backward"], 1), (["forward", "gradient"], 0), (["setup"], 0), ([], 0)],
    ids=str,
)
def test_the_gpus_are_read_while_ranks_are_in_their_steps(phases: list[str], told: int) -> None:
    beats = [
        {"rank": rank, "count": 1, "phase": phase, "step": 0} for rank, phase in enumerate(phases)
    ]
    spec = configure().environment
    server = SimpleNamespace(
        interpreter=SimpleNamespace(spec=spec),
        versions={"torch": spec.torch, "deepspeed": spec.deepspeed},
        ask=lambda *request: {"op": "progress", "beats": beats},
    )
    host, calls = Host(server), []  # type: ignore[arg-type, var-annotated]
    host.in_steps = lambda: calls.append(1)
    host._progressed(Flight(len(phases)), on_cpu=False)
    assert len(calls) == told
