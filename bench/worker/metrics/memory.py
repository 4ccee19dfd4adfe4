"""Peak memory of a rank: the allocator's count on CUDA, its own anonymous memory on CPU."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path
from typing import Dict, Optional

import torch

from bench.record import RankMemory

_M_MMAP_THRESHOLD = -3
"""Number of the option in glibc's malloc.h."""
_SMALLEST_MAPPED_BYTES = 1 << 17
"""glibc's own value at start, before it adapts."""
_ATTRIBUTES_BYTES = 256
"""More than a `pthread_attr_t` takes on any platform."""
_STACK_BYTES = 1 << 20


class CpuMemory:
    """The kernel's high-water mark of resident memory, less what the rank shares.

    A forked rank starts with the server's pages. Its own memory is what it holds in anonymous
    pages above those; file pages (libraries) are shared and left out.
    """

    def __init__(self, shared_bytes: int) -> None:
        self._baseline = shared_bytes

    def reset_peak(self) -> None:
        """Start a new high-water mark (`proc(5)`: 5 in clear_refs)."""
        Path("/proc/self/clear_refs").write_text("5")

    def read(self, rank: int) -> RankMemory:
        """The peak since `reset_peak`."""
        now = _status()
        shared = now["RssFile"] + now["RssShmem"]
        peak = max(0, now["VmHWM"] - shared - self._baseline)
        return RankMemory(rank=rank, peak_bytes=peak, baseline_bytes=self._baseline)


class CudaMemory:
    """PyTorch's caching allocator, and beside it what the driver says of the whole GPU."""

    def __init__(self, alone: bool) -> None:
        """`alone`: no other rank of the trial computes on this rank's GPU."""
        self._alone = alone

    def reset_peak(self) -> None:
        """Start new peaks of allocated and reserved memory."""
        torch.cuda.reset_peak_memory_stats()

    def read(self, rank: int) -> RankMemory:
        """The peaks since `reset_peak`, and what is in use outside of the allocator now.

        The driver counts every process on the GPU: what other programs hold counts as outside,
        and where ranks share the GPU nothing can be said of one of them.
        """
        free, total = torch.cuda.mem_get_info()
        outside = total - free - torch.cuda.memory_reserved()
        return RankMemory(
            rank=rank,
            peak_bytes=torch.cuda.max_memory_allocated(),
            peak_reserved_bytes=torch.cuda.max_memory_reserved(),
            baseline_bytes=0,
            device_used_bytes=total - free,
            outside_allocator_bytes=outside if self._alone else None,
        )


def anonymous_bytes() -> int:
    """Anonymous memory of this process now [bytes]."""
    return _status()["RssAnon"]


def limit(device: str, bytes_per_rank: Optional[int]) -> None:
    """Let this process allocate no more than `bytes_per_rank`, if that is not None.

    On CPU the limit counts private data pages, as `RLIMIT_DATA` does, above those the process
    has now: what is allocated, touched or not, as a GPU counts. The kernel refuses at once, and
    torch's allocator then raises as it does when the machine is full.
    """
    if bytes_per_rank is None:
        return
    if device == "cuda":
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, bytes_per_rank / total))
    else:
        _return_freed_memory()
        _small_stacks()
        bound = _status()["VmData"] + bytes_per_rank
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)  # to which a rank that reports returns
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


def _return_freed_memory() -> None:
    """Have the C library give memory back when it is freed.

    By itself it keeps what was freed, up to 32 MiB a piece, for the next `malloc` (mallopt(3),
    M_MMAP_THRESHOLD), so that a process holds more than it uses: a quarter more was seen.
    It costs time: fresh pages are zeroed by the kernel.
    """
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _SMALLEST_MAPPED_BYTES)


def _small_stacks() -> None:
    """Give threads that start from now on (gloo's, for every group) stacks that hardly count.

    A stack counts whole, 8 MiB by default, though next to none of it is used.
    """
    library, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
    library.pthread_attr_init(attributes)
    library.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK_BYTES))
    library.pthread_setattr_default_np(attributes)


def _status() -> Dict[str, int]:
    """Memory lines of /proc/self/status [bytes]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields}
