"""What NCCL's watchdog writes before it ends a rank, word for word, and what a trial makes of it.

The texts are those of torch's and NCCL's sources and of published logs; no NCCL runs here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.controller.outcome import Flight
from bench.controller.reports import is_out_of_memory
from bench.controller.trial_log import TrialLog
from bench.record import RankError, Status
from tests.controller.test_outcome import exited, finished, raised, take

SIGKILL, SIGABRT, SIGSEGV = 9, 6, 11

NOT_STARTED = "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"

TIMED_OUT_2_2 = (
    "[E ProcessGroupNCCL.cpp:523] [Rank 1] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=12626, OpType=_ALLGATHER_BASE, Timeout(ms)=600000) ran for 605485 "
    "milliseconds before timing out.\n"
    "[E ProcessGroupNCCL.cpp:537] Some NCCL operations have failed or timed out. Due to the "
    "asynchronous nature of CUDA kernels, subsequent GPU operations might run on "
    "corrupted/incomplete data.\n"
    "[E ProcessGroupNCCL.cpp:543] To avoid data inconsistency, we are taking the entire process "
    "down.\nterminate called after throwing an instance of 'std::runtime_error'\n"
)
TIMED_OUT_2_7 = (
    "[rank6]:[E628 09:54:15.885613614 ProcessGroupNCCL.cpp:818] [Rank 6] Some NCCL operations "
    "have failed or timed out. Due to the asynchronous nature of CUDA kernels, subsequent GPU "
    "operations might run on corrupted/incomplete data.\n"
    "[rank6]:[E628 09:54:15.886208728 ProcessGroupNCCL.cpp:2197] [PG ID 0 PG GUID 0(default_pg) "
    "Rank 6] Process group watchdog thread terminated with exception: [Rank 6] Watchdog caught "
    "collective operation timeout: WorkNCCL(SeqNum=78, OpType=SCATTER, NumelIn=29360128, "
    "NumelOut=0, Timeout(ms)=1800000) ran for 1800043 milliseconds before timing out.\n"
)
STUCK_2_2 = (
    "[E ProcessGroupNCCL.cpp:1054] [Rank 0] NCCL monitor thread timeout. Basically, this could be "
    "due to CUDA or NCCL calls being unexpectedly blocking, especially when your program enters a "
    "deadlock state in watchdogor destructors.\n[F ProcessGroupNCCL.cpp:1091] [Rank 0] monitoring "
    "thread detects no heartbeat and will finally kill the process!\n"
)
STUCK_2_8 = (
    "[rank0]:[E725 02:47:41 ProcessGroupNCCL.cpp:1808] [PG ID 0 PG GUID 0(default_pg) Rank 0] "
    "ProcessGroupNCCL's watchdog got stuck for 480 seconds without making progress in monitoring "
    "enqueued collectives.\n[rank0]:[F725 02:47:41 ProcessGroupNCCL.cpp:1653] [PG ID 0 PG GUID "
    "0(default_pg) Rank 0] Terminating the process after attempting to dump debug info, due to "
    "ProcessGroupNCCL watchdog hang.\n"
)
PEER_LOST = (
    "[E ProcessGroupNCCL.cpp:481] Some NCCL operations have failed or timed out. Due to the "
    "asynchronous nature of CUDA kernels, subsequent GPU operations might run on "
    "corrupted/incomplete data.\n[E ProcessGroupNCCL.cpp:852] [Rank 16] NCCL watchdog thread "
    "terminated with exception: NCCL error: remote process exited or there was a network error, "
    "NCCL version 2.19.3\nncclRemoteError: A call failed possibly due to a network error or a "
    "remote process exiting prematurely.\n"
)
FULL = (
    "terminate called after throwing an instance of 'c10::DistBackendError'\n  what():  [PG 0 "
    "Rank 1] NCCL watchdog thread terminated with exception: NCCL error: unhandled cuda error, "
    "NCCL version 2.21.5\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
    "Cuda failure 2 'out of memory'\n"
)
NCCL_IS_OUT_OF_MEMORY = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, unhandled cuda error "
    "(run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\nncclUnhandledCudaError: Call to "
    "CUDA function failed.\nLast error:\nFailed to CUDA calloc async 608 bytes"
)
NCCL_LOST_A_PEER = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:3384, remote process "
    "exited or there was a network error, NCCL version 2.21.5\nncclRemoteError: A call failed "
    "possibly due to a network error or a remote process exiting prematurely."
)


def outcome(log: Path, written: str, *lines: Any, world: int = 4) -> dict[str, Any]:
    """The record's fields of a trial whose ranks wrote `written` while it ran."""
    flight = Flight(world, log=TrialLog(log))
    flight.oom_kills_before = 1 << 60  # no kill of this machine can count
    with log.open("a") as file:
        file.write(written)
    for line in lines:
        take(flight, line)
    return flight.fields()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log in which another launch of the trial left a watchdog's words."""
    path = tmp_path / "trial.log"
    path.write_text(TIMED_OUT_2_2)
    return path


@pytest.mark.parametrize(
    ("written", "why"),
    [
        pytest.param(TIMED_OUT_2_2, "reported a collective that timed out", id="timeout 2.2"),
        pytest.param(TIMED_OUT_2_7, "reported a collective that timed out", id="timeout 2.7"),
        pytest.param(STUCK_2_2, "was stuck without a heartbeat", id="heartbeat 2.2"),
        pytest.param(STUCK_2_8, "was stuck without a heartbeat", id="heartbeat 2.8"),
    ],
)
def test_an_abort_of_a_watchdog_that_waited_in_vain_is_a_hang(
    log: Path, written: str, why: str
) -> None:
    found = outcome(log, written, exited(1, SIGABRT), exited(0, SIGABRT))
    assert found["status"] is Status.HANG
    ended = "rank 1 ended by SIGABRT without a result (then rank 0 by SIGABRT)"
    assert found["reason"] == f"NCCL's watchdog {why}; {ended}"
    assert found["first_ended"] == 1


@pytest.mark.parametrize("written", ["", "Fatal Python error: Aborted\n", PEER_LOST])
def test_any_other_abort_is_a_crash(log: Path, written: str) -> None:
    """The words that an earlier launch left in the log are not of this one."""
    found = outcome(log, written, exited(1, SIGABRT))
    assert found["status"] is Status.CRASH
    assert found["reason"] == "rank 1 ended by SIGABRT without a result"


def test_the_rank_that_ended_first_is_named_and_the_aborts_after_it_are_not_the_cause(
    log: Path,
) -> None:
    deaths = [exited(2, SIGKILL), exited(3, SIGABRT), exited(0, SIGABRT), exited(1, exit_code=1)]
    found = outcome(log, PEER_LOST, *deaths)
    assert found["status"] is Status.CRASH
    assert found["reason"] == (
        "rank 2 ended by SIGKILL without a result (then ranks 0, 3 by SIGABRT, "
        "rank 1 by exit code 1)"
    )
    assert found["first_ended"] == 2


def test_aborts_after_a_rank_raised_are_not_the_cause(log: Path) -> None:
    found = outcome(log, PEER_LOST, raised(2, message="on purpose"), exited(0, SIGABRT))
    assert (found["status"], found["reason"]) == (
        Status.ERROR,
        "RuntimeError in forward on rank 2: on purpose",
    )
    assert "first_ended" not in found


def test_a_lost_peer_that_a_rank_raises_does_not_hide_who_died(log: Path) -> None:
    found = outcome(log, "", raised(0, message=NCCL_LOST_A_PEER), exited(3, SIGABRT))
    assert found["status"] is Status.CRASH
    assert found["first_ended"] == 3


def test_an_abort_is_the_cause_where_others_raised_only_that_they_lost_a_peer(log: Path) -> None:
    found = outcome(log, PEER_LOST, raised(0, message=NCCL_LOST_A_PEER), exited(3, SIGABRT))
    assert found["status"] is Status.CRASH
    assert found["first_ended"] == 3


@pytest.mark.parametrize("signals", [[SIGSEGV], [SIGABRT, SIGSEGV]])
def test_a_fault_beside_an_exception_is_still_a_crash(log: Path, signals: list[int]) -> None:
    ended = [exited(rank, signal) for rank, signal in enumerate(signals)]
    found = outcome(log, PEER_LOST, raised(2, message="on purpose"), *ended)
    assert found["status"] is Status.CRASH


def test_an_abort_because_memory_ran_out_is_that(log: Path) -> None:
    found = outcome(log, FULL, exited(1, SIGABRT))
    assert found["status"] is Status.OOM
    harmless = FULL.replace("terminate called after throwing", "a warning says")
    assert outcome(log, harmless, exited(1, SIGABRT))["status"] is Status.CRASH


def test_a_full_card_that_others_see_as_a_lost_peer_first(log: Path) -> None:
    lines = [raised(0, message=NCCL_LOST_A_PEER), exited(1, SIGABRT), finished(3)]
    lines.append(raised(2, "torch.distributed.DistBackendError", NCCL_IS_OUT_OF_MEMORY))
    found = outcome(log, PEER_LOST, *lines)
    assert found["status"] is Status.OOM


def test_ranks_that_only_lost_a_peer_do_not_tell_why() -> None:
    flight = Flight(4)
    assert not flight.cause_known()
    take(flight, raised(0, message=NCCL_LOST_A_PEER))
    take(flight, raised(1, message="[gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    assert not flight.cause_known()
    take(flight, raised(2, "torch.distributed.DistBackendError", NCCL_IS_OUT_OF_MEMORY))
    assert flight.cause_known()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (NCCL_IS_OUT_OF_MEMORY, True),
        (NCCL_IS_OUT_OF_MEMORY.replace("calloc async 608", "malloc 4194304"), True),
        (NCCL_IS_OUT_OF_MEMORY.replace("calloc async 608", "calloc 4194304"), True),
        (NCCL_IS_OUT_OF_MEMORY.replace("CUDA calloc async", "CUDA host alloc"), True),
        (NCCL_IS_OUT_OF_MEMORY.partition("Failed")[0] + "Cuda failure 2 'out of memory'", True),
        (NCCL_IS_OUT_OF_MEMORY.partition("Failed")[0] + "Cuda failure 'invalid argument'", False),
        (NCCL_LOST_A_PEER, False),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", False),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_what_libraries_say_of_a_full_card(message: str, expected: bool) -> None:
    error = RankError(rank=0, type="RuntimeError", message=message, traceback="", phase="forward")
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("message", "free", "expected"),
    [
        (NOT_STARTED, 2**28 - 1, True),
        (NOT_STARTED, 2**28, False),
        (NOT_STARTED, None, False),
        (NOT_STARTED.replace("CUBLAS", "CUDNN"), 0, True),
        ("CUDA error: an illegal memory access was encountered", 0, False),
    ],
)
def test_a_library_that_cannot_start_on_a_full_card_is_out_of_memory(
    message: str, free: int | None, expected: bool
) -> None:
    line = raised(0, message=message)
    line["error"]["device_free_bytes"] = free
    flight = Flight(1)
    take(flight, line)
    assert (flight.fields()["status"] is Status.OOM) is expected
