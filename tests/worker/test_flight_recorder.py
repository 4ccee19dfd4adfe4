"""What the collectives of a hung rank were doing, in a file that outlives the trial.

On torch 2.13 gloo has a flight recorder, so that a real hang leaves real dumps. NCCL's own pipe is
simulated (`tests/inside/flight_recorder.py`).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.record import Status
from bench.trial import Limits
from tests.conftest import RunTrial, configure

pytestmark = pytest.mark.environment

OLD_NAMES = {
    "TORCH_NCCL_TRACE_BUFFER_SIZE": "7",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": "scratch/flight-",
    "TORCH_NCCL_DEBUG_INFO_PIPE_FILE": "scratch/flight-",
}


@pytest.mark.parametrize(
    ("environment", "backend", "pickled"),
    [
        pytest.param("torch-2.2", "nccl", "list", id="2.2 has no pipe"),
        pytest.param("torch-2.13", "gloo", "dict", id="2.13 on gloo"),
    ],
)
def test_each_rank_that_can_answers(
    environment: str, backend: str, pickled: str, run_inside: Callable[..., Any]
) -> None:
    found = run_inside(environment, "flight_recorder.py", backend)
    assert found["listener"] == pickled
    assert found["torch"] == {"entries": ["all_reduce"]}
    assert found["others"] == [None, None]
    assert found["listening threads"] == 1
    assert found["took"] < 30
    stem = "scratch/flight-"
    assert found["variables"] == {
        "TORCH_FR_BUFFER_SIZE": "7",  # as the user chose
        "TORCH_FR_DUMP_TEMP_FILE": stem,
        "TORCH_FR_DEBUG_INFO_PIPE_FILE": stem,
        **(OLD_NAMES if backend == "nccl" else {}),
    }


def test_gloo_of_torch_2_2_records_nothing(run_inside: Callable[..., Any]) -> None:
    found = run_inside("torch-2.2", "flight_recorder.py", "gloo")
    assert (found["listener"], found["listening threads"]) == ("NoneType", 0)


def test_a_hang_leaves_what_each_rank_was_waiting_for(run_trial: RunTrial, results: Path) -> None:
    hang = configure(
        scenario="drill", options={"fault": "hang"}, limits=Limits(hang_s=1.5), loss="local"
    )
    record = run_trial(hang)
    assert record.status is Status.HANG
    assert [Path(name).parent.name for name in record.flight_recorder] == ["logs"] * 4
    dumps = [pickle.loads((results / name).read_bytes()) for name in record.flight_recorder]
    pair = [dump["pg_status"]["1"] for dump in dumps[2:]]  # their sequence-parallel group
    begun = [one["last_enqueued_collective"] for one in pair]
    ended = [one["last_completed_collective"] for one in pair]
    assert begun[0] == ended[0] + 1 == begun[1] + 1 == ended[1] + 1  # rank 3 never joined


def test_other_ends_leave_none(run_trial: RunTrial) -> None:
    for fault in ("none", "raise"):
        record = run_trial(configure(scenario="drill", options={"fault": fault}))
        assert record.flight_recorder == []
