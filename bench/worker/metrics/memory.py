"""Peak memory of a rank: the allocator's count on CUDA, its own anonymous memory on CPU."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Dict, Optional

import torch

from bench.record import RankMemory


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
    """PyTorch's caching allocator."""

    def reset_peak(self) -> None:
        """Start new peaks of allocated and reserved memory."""
        torch.cuda.reset_peak_memory_stats()

    def read(self, rank: int) -> RankMemory:
        """The peaks since `reset_peak`."""
        return RankMemory(
            rank=rank,
            peak_bytes=torch.cuda.max_memory_allocated(),
            peak_reserved_bytes=torch.cuda.max_memory_reserved(),
            baseline_bytes=0,
        )


def anonymous_bytes() -> int:
    """Anonymous memory of this process now [bytes]."""
    return _status()["RssAnon"]


def limit(device: str, bytes_per_rank: Optional[int]) -> None:
    """Let this process allocate no more than `bytes_per_rank`, if that is not None.

    On CPU the limit counts private data pages, as `RLIMIT_DATA` does, above those the process
    has now; torch's allocator then raises as it does when the machine is full.
    """
    if bytes_per_rank is None:
        return
    if device == "cuda":
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, bytes_per_rank / total))
    else:
        bound = _status()["VmData"] + bytes_per_rank
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


def _status() -> Dict[str, int]:
    """Memory lines of /proc/self/status [bytes]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields}
