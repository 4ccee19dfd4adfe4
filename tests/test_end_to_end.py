"""The front door: `./run_sweep.sh` with real torch, real DeepSpeed and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from bench.controller.environments import provide
from bench.record import Record
from bench.record_files import read_records
from tests.conftest import ROOT, spec

pytestmark = pytest.mark.environment

SMALL = (
    "+experiment=quick",
    "seq_len=64",
    "sp=2",
    "steps=1",
    "warmup_steps=1",
    "rounds=2",
)


def start(folder: Path, *overrides: str, **variables: str) -> subprocess.Popen[str]:
    """A sweep from another working directory, as its own session."""
    return subprocess.Popen(
        [ROOT / "run_sweep.sh", *overrides, f"results={folder}"],
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "120", **variables},
        start_new_session=True,
    )


def sweep(folder: Path, overrides: Sequence[str]) -> str:
    """Run a sweep to its end; it must end well. Gives what it printed."""
    process = start(folder, *overrides)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def records(folder: Path) -> list[Record]:
    return [Record.model_validate(raw.content) for raw in read_records(folder)]


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_both_torch_versions(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    output = sweep(folder, SMALL)
    found = {
        (r.config.environment.name, r.config.loss, r.round): (
            r.status.value,
            r.gradient.verdict + " " + r.gradient.scale_label if r.gradient else r.reason,
        )
        for r in records(folder)
    }
    for index in (0, 1):
        assert found["torch-2.2", "weighted_all_reduce", index] == ("ok", "match ×1")
        assert found["torch-2.13", "weighted_all_reduce", index] == ("ok", "match ×1")
        assert found["torch-2.13", "all_gather", index] == ("ok", "scaled ×2")
        assert found["torch-2.2", "all_gather", index] == (
            "error",
            "IndexError in backward on ranks 2, 3: tuple index out of range",
        )
    assert len(found) == 8
    assert "8 trials: 6 ok, 2 error; not ok: 2" in output
    assert str(folder) in output.splitlines()[-1]

    again = sweep(folder, SMALL)  # everything is recorded: nothing is launched
    assert len(records(folder)) == 8
    assert "8 trials: 6 ok, 2 error; not ok: 2" in again


@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["ctrl-c", "terminate", "kill"],
)
def test_interrupted_sweeps_leave_whole_records_and_no_process(
    tmp_path: Path, how: signal.Signals, code: int
) -> None:
    folder = tmp_path / "results"
    arguments = (*SMALL, "environment=torch-2.13", "loss=local", "rounds=6")
    process = start(folder, *arguments)
    wait_until(lambda: folder.exists() and len(records(folder)) >= 2)
    family = below(process)
    assert family
    process.send_signal(how)
    assert process.wait(timeout=60) == code
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
    assert process.stdout is not None
    process.stdout.close()
    kept = records(folder)
    assert 2 <= len(kept) < 6
    assert {r.status.value for r in kept} == {"ok"}

    sweep(folder, arguments)
    assert sorted(r.round for r in records(folder)) == [0, 1, 2, 3, 4, 5]
    assert {r.trial_id for r in kept} <= {r.trial_id for r in records(folder)}


@pytest.mark.parametrize("moment", ["a server starts", "a trial runs"])
def test_an_impatient_second_ctrl_c_leaves_no_scratch_folder(tmp_path: Path, moment: str) -> None:
    scratch, folder = tmp_path / "scratch", tmp_path / "results"
    scratch.mkdir()
    ready = {
        "a server starts": lambda: list(scratch.glob("spbench-*")) != [],
        "a trial runs": lambda: folder.exists() and len(records(folder)) >= 1,
    }
    arguments = (*SMALL, "environment=torch-2.13", "loss=local", "rounds=20")
    process = start(folder, *arguments, TMPDIR=str(scratch))
    wait_until(ready[moment])
    family = below(process)
    for _ in range(4):  # the first ends it, and none of the others its tidying up
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    assert process.wait(timeout=60) != 0
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert process.stdout is not None
    process.stdout.close()
    assert list(scratch.glob("spbench-*")) == []


def test_two_sweeps_in_one_folder_share_the_work(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    arguments = (*SMALL, "environment=torch-2.13", "rounds=3")
    both = [start(folder, *arguments) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    keys = [r.key for r in records(folder)]
    assert len(keys) == len(set(keys)) == 6
    assert {r.status.value for r in records(folder)} == {"ok"}


def test_axis_value_that_cannot_run_is_recorded_and_the_rest_runs(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    arguments = (*SMALL, "environment=torch-2.13", "loss=local", "seq_len=63,64", "rounds=1")
    output = sweep(folder, arguments)
    found = {r.config.seq_len: (r.status.value, r.reason) for r in records(folder)}
    assert found[64] == ("ok", None)
    assert found[63] == ("unsupported", "seq_len=63 is not divisible by sp=2")
    assert "1 unsupported" in output


def test_an_interpreter_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    python = provide(spec("torch-2.13")).python
    sweep(folder, (*SMALL, "environment=current", f"environment.python={python}", "loss=local"))
    assert {r.config.environment.python for r in records(folder)} == {str(python)}
    assert {r.status.value for r in records(folder)} == {"ok"}
