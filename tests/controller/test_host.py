"""Every status provoked for real, and what is left behind: nothing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.controller.environments import provide
from bench.controller.hosts import Hosts
from bench.controller.interpreter import Interpreter
from bench.record import Record, Status
from bench.trial import EnvironmentSpec, Limits, Trial
from tests.conftest import RunTrial, configure, spec

pytestmark = pytest.mark.environment

SMALL_BUCKETS = {"zero_optimization": {"reduce_bucket_size": 1_000_000}}


def drill(run_trial: RunTrial, fault: str, **fields: Any) -> Record:
    return run_trial(configure(scenario="drill", options={"fault": fault}, **fields))


def ranks_alive() -> list[psutil.Process]:
    """Processes below the servers of this process."""
    everyone = psutil.Process().children(recursive=True)
    return [process for process in everyone if process.ppid() != os.getpid()]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    before = set(os.listdir("/dev/shm"))
    yield
    assert ranks_alive() == []
    assert set(os.listdir("/dev/shm")) == before


def test_ok(run_trial: RunTrial) -> None:
    assert drill(run_trial, "none").status is Status.OK


def test_error_names_the_rank_and_the_phase(run_trial: RunTrial) -> None:
    record = drill(run_trial, "raise")
    assert record.status is Status.ERROR
    assert record.reason == "RuntimeError in backward on rank 3: raised on purpose"
    assert record.errors[0].step == 1
    assert "raised on purpose" in record.errors[0].traceback
    assert [o.outcome for o in record.ranks] == ["interrupted"] * 3 + ["raised"]


def test_crash_by_signal(run_trial: RunTrial) -> None:
    record = drill(run_trial, "kill")
    assert record.status is Status.CRASH
    assert record.reason == "rank 3 ended by SIGKILL without a result"
    assert (record.ranks[3].outcome, record.ranks[3].signal) == ("killed", 9)


def test_crash_without_a_word(run_trial: RunTrial) -> None:
    record = drill(run_trial, "exit")
    assert record.status is Status.CRASH
    assert record.reason == "rank 3 ended by exit code 3 without a result"


def test_hang_keeps_every_stack(run_trial: RunTrial) -> None:
    record = drill(run_trial, "hang", limits=Limits(hang_s=1.5))
    assert record.status is Status.HANG
    assert record.reason == "no progress for 1.5 s; ranks 0, 1, 2, 3 in backward"
    assert all("in step" in str(o.stack) for o in record.ranks)
    assert ["in _hang" in str(o.stack) for o in record.ranks] == [False, False, False, True]


def test_computing_is_no_hang_but_runs_out_of_time(run_trial: RunTrial) -> None:
    record = drill(run_trial, "spin", limits=Limits(hang_s=1.5, timeout_s=4))
    assert record.status is Status.TIMEOUT
    assert "_spin" in str(record.ranks[3].stack)


def test_out_of_memory(run_trial: RunTrial) -> None:
    record = drill(run_trial, "memory", memory_limit=200 << 20, deepspeed=SMALL_BUCKETS)
    assert record.status is Status.OOM
    assert [e.rank for e in record.errors] == [3]


def test_files_that_ranks_left_in_shared_memory_go_and_are_named(run_trial: RunTrial) -> None:
    stranger = Path("/dev/shm") / f"not-of-the-trial-{os.getpid()}"
    stranger.write_bytes(b"a data set")
    try:
        record = drill(run_trial, "litter")
    finally:
        stranger.unlink()  # it was there still
    assert record.status is Status.ERROR
    assert record.worker is not None
    removed = [text for text in record.worker.warnings if "/dev/shm" in text]
    assert len(removed) == 3
    left = r"spbench: removed /dev/shm/(\S+) \(1,000 bytes\), which ranks left"
    names = [match[1] for text in removed if (match := re.fullmatch(left, text))]
    assert names[:2] == ["spbench-drill-mapped", "spbench-drill-opened"]
    assert re.fullmatch(r"torch_\d+_drill", names[2])


def test_a_log_keeps_its_first_and_its_last_10_mb(run_trial: RunTrial, results: Path) -> None:
    record = drill(run_trial, "talk")
    assert record.status is Status.OK and record.log is not None
    log = results / record.log
    assert 20_000_000 < log.stat().st_size < 20_000_100
    assert record.worker is not None
    [said] = [text for text in record.worker.warnings if "of the log" in text]
    size = int(said.split()[1].replace(",", ""))
    assert f"{size:,} bytes of output are left out here".encode() in log.read_bytes()


def test_unknown_name_says_what_there_is(run_trial: RunTrial) -> None:
    record = run_trial(configure(loss="no_such_loss"))
    assert record.status is Status.ERROR
    assert "loss=no_such_loss" in str(record.reason)
    assert "weighted_all_reduce" in str(record.reason)


def test_versions_that_do_not_match_are_no_number(results: Path) -> None:
    """The interpreter has torch 2.13.0; the configuration asks for another."""

    def elsewhere(asked: EnvironmentSpec) -> Interpreter:
        real = provide(spec("torch-2.13"))
        return Interpreter(asked, real.python, real.extensions, real.preload)

    lie = EnvironmentSpec(name="lie", torch="2.12.0", deepspeed="0.18.2")
    configuration = configure().model_copy(update={"environment": lie})
    with Hosts(elsewhere) as hosts:
        record = hosts.run(Trial(configuration=configuration, round=0), results)
    assert record.status is Status.ENVIRONMENT
    assert "torch 2.13.0" in str(record.reason)
    assert "instead of 2.12.0" in str(record.reason)
    assert record.samples == []


def test_interpreter_without_torch_is_an_environment_record(results: Path, tmp_path: Path) -> None:
    starts = []

    def broken(asked: EnvironmentSpec) -> Interpreter:
        starts.append(asked)
        real = provide(spec("torch-2.13"))
        shadow = tmp_path / "torch"
        shadow.mkdir(exist_ok=True)
        (shadow / "__init__.py").write_text("raise ImportError('libcudart is missing')")
        os.environ["SPBENCH_USER_PYTHONPATH"] = str(tmp_path)
        return Interpreter(asked, real.python, real.extensions, tmp_path / "preload.json")

    given = EnvironmentSpec(name="mine", python=str(provide(spec("torch-2.13")).python))
    configuration = configure().model_copy(update={"environment": given})
    try:
        with Hosts(broken) as hosts:
            record = hosts.run(Trial(configuration=configuration, round=0), results)
            again = hosts.run(Trial(configuration=configuration, round=1), results)
    finally:
        del os.environ["SPBENCH_USER_PYTHONPATH"]
    assert len(starts) == 1  # a broken server is not started again
    assert record.status is again.status is Status.ENVIRONMENT
    assert "libcudart is missing" in str(record.reason)


def test_server_survives_its_trials_and_dies_with_the_pool(results: Path) -> None:
    others = set(psutil.Process().children())
    with Hosts(provide) as hosts:
        for round_index in range(3):
            trial = Trial(configuration=configure(scenario="drill"), round=round_index)
            assert hosts.run(trial, results).status is Status.OK
        assert len(set(psutil.Process().children()) - others) == 1
    assert set(psutil.Process().children()) <= others


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("shm", [False, True], ids=["default", "deepspeed_shm"])
def test_200_killed_trials_leave_nothing(run_trial: RunTrial, results: Path, shm: bool) -> None:
    comm = configure().comm.model_copy(update={"deepspeed_shm": shm})
    before = set(os.listdir("/dev/shm"))
    for _ in range(200):
        assert drill(run_trial, "kill", comm=comm).status is Status.CRASH
        assert set(os.listdir("/dev/shm")) == before
    assert ranks_alive() == []
    extensions = provide(spec("torch-2.13")).extensions
    assert list(extensions.rglob("lock")) == []
    assert drill(run_trial, "none", comm=comm).status is Status.OK


@pytest.mark.slow
def test_the_first_trial_that_imports_is_a_rehearsal(results: Path, tmp_path: Path) -> None:
    """With nothing learnt, ranks import much themselves; what is recorded is a trial that did not.

    The list outlives the server: another one rehearses nothing.
    """
    real = provide(spec("torch-2.13"))
    mine = Interpreter(real.spec, real.python, real.extensions, tmp_path / "preload.json")
    trials = [Trial(configuration=configure(world=2), round=index) for index in range(3)]
    notes: list[str] = []
    with Hosts(lambda _: mine) as hosts:
        first, second = (hosts.run(trial, results, notes.append) for trial in trials[:2])
    [note] = notes
    assert note.startswith("rehearsal, ") and note.endswith("; again without that")
    learnt = json.loads((tmp_path / "preload.json").read_text())
    assert f"ranks imported {len(learnt)} module" in note
    with Hosts(lambda _: mine) as others:
        third = others.run(trials[2], results, notes.append)
    assert len(notes) == 1
    for record in (first, second, third):
        assert record.status is Status.OK, record.reason
        assert record.worker is not None and record.noisy == []
        assert not set(record.worker.late_imports) & set(learnt)


@pytest.mark.slow
def test_what_ranks_imported_before_they_raised_is_learnt(results: Path, tmp_path: Path) -> None:
    """It may be why they ran out of memory, and the next trial need not pay for it."""
    real = provide(spec("torch-2.13"))
    mine = Interpreter(real.spec, real.python, real.extensions, tmp_path / "preload.json")
    with Hosts(lambda _: mine) as hosts:
        record = drill(lambda c: hosts.run(Trial(configuration=c, round=0), results), "raise")
    assert record.status is Status.ERROR
    assert record.worker is not None and record.worker.late_imports
    assert json.loads((tmp_path / "preload.json").read_text())
