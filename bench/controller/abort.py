"""What an abort of NCCL's watchdog means, by what it wrote into the trial's log before.

ProcessGroupNCCL watches its collectives in a thread, which ends the process by SIGABRT when one
timed out, when NCCL reported an error, or when the thread itself was stuck. The texts are those of
torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp (`WorkNCCL::checkTimeout`, `heartbeatMonitor`) and
NCCLUtils.cpp (`ncclGetErrorWithVersion`, `getNcclErrorDetailStr`), from torch 2.2 to 2.13.
"""

from __future__ import annotations

from bench.record import Status

_TIMED_OUT = "Watchdog caught collective operation timeout"
_STUCK = (
    "watchdog got stuck for",  # from 2.3 on
    "Heartbeat monitor timed out!",  # 2.3 and 2.4
    "monitoring thread detects no heartbeat",  # 2.2
    "NCCL monitor thread timeout",  # 2.2
)
_PEER_LOST = (
    "remote process exited or there was a network error",  # torch's words for ncclRemoteError
    "ncclremoteerror",
    "connection closed by remote peer",  # NCCL's sockets
    "connection closed by peer",  # gloo
    "connection reset by peer",
)
_LAST_WORDS = "terminate called after throwing"
"""How the C++ library begins to say which exception nobody caught."""
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    # cuBLAS, cuDNN, cuSPARSE: CUBLAS_STATUS_ALLOC_FAILED, …; CUBLAS_STATUS_NOT_INITIALIZED, which
    # cublasCreate gives on a full card as well, has other causes too: `bench.controller.reports`
    "_status_alloc_failed",
    "_allocation_failed",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, …
    # NCCL, src/include/alloc.h: malloc, calloc and calloc async; host memory. It says no more of
    # why an allocation failed, so that a fault of the device that surfaces there reads the same.
    "failed to cuda malloc",
    "failed to cuda calloc",
    "failed to cuda host alloc",
)


def says_out_of_memory(text: str) -> bool:
    """Whether a message says that memory ran out, on CPU or GPU."""
    lower = text.lower()
    return any(words in lower for words in _OUT_OF_MEMORY)


def says_peer_lost(text: str) -> bool:
    """Whether a message only says that another rank, or the way to it, is gone."""
    lower = text.lower()
    return any(words in lower for words in _PEER_LOST) and not says_out_of_memory(text)


def meaning(output: str) -> tuple[Status, str] | None:
    """Status and reason of a trial whose first rank to end did so by SIGABRT.

    `output` is what the ranks wrote. None where it tells of neither a hang nor lack of memory.
    """
    if _TIMED_OUT in output:
        return Status.HANG, "NCCL's watchdog reported a collective that timed out"
    if any(words in output for words in _STUCK):
        return Status.HANG, "NCCL's watchdog was stuck without a heartbeat"
    if says_out_of_memory(output.partition(_LAST_WORDS)[2]):
        return Status.OOM, "an exception that nobody caught said that memory ran out"
    return None
