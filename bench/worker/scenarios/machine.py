"""What the machine can do, seen from its ranks: matrix products, memory copies, all-to-alls.

All ranks measure at the same time, so that what they share (cores, memory, links) is shared out
as it is in training. What is timed are batches of calls (`bench.worker.metrics.batch`). A batch
is repeated; the fastest repetition, which others disturbed least, is taken, and it takes as long
as its slowest rank.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import torch
import torch.distributed as dist

from bench.worker.mesh import barrier
from bench.worker.metrics.batch import CALLS, seconds_per_call
from bench.worker.rank import Rank

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MATRIX = {"cpu": 768, "cuda": 8192}
"""Rows of the matrices that are multiplied."""
COPIED_BYTES = {"cpu": 32 * 2**20, "cuda": 2**30}
MESSAGES = {
    "cpu": tuple(4**power * 1024 for power in range(1, 8)),
    "cuda": tuple(4**power * 1024 for power in range(1, 11)),
}
"""Bytes that a rank hands into an all-to-all: 4 KiB to 16 MiB on CPU, to 1 GiB on a GPU, whose
links are not full before."""
LEAST_CALLS = {"cpu": 1, "cuda": CALLS}
"""Of one repetition, unless they take `MOST_S`."""
MOST_S = 1.0
"""Of one repetition that has no more than `LEAST_CALLS`: ranks that share a GPU take seconds for a
GiB, and a repetition without a sign of life in between must not pass for a hang."""
SECONDS = 0.15
"""Of one repetition, about, where that is more than `LEAST_CALLS`."""
REPETITIONS = 5


def run(rank: Rank) -> Dict[str, Any]:
    """Measure; `details` has `matmul_flops`, `copy_bandwidth`, `all_to_all`, `gpu_memory_bytes`.

    Rates are of one rank [FLOP/s, bytes/s]; `all_to_all` lists bytes handed in and seconds;
    `gpu_memory_bytes` is what a rank's GPU has in all, 0 on CPU.
    """
    rank.enter("matmul")
    matmul = _matmul_flops(rank)
    rank.enter("copy")
    copy = _copy_bandwidth(rank)
    curve = []
    if dist.get_world_size() > 1:
        for size in MESSAGES[rank.device.type]:
            rank.enter("all-to-all")
            curve.append({"bytes": size, "seconds": _all_to_all_s(rank, size)})
            if rank.index == 0:
                rank.row(**curve[-1])
    details = {
        "headline": f"{matmul / 1e9:,.1f} GFLOP/s, {copy / 1e9:,.1f} GB/s a rank",
        "matmul_flops": matmul,
        "copy_bandwidth": copy,
        "all_to_all": curve,
        "gpu_memory_bytes": _gpu_memory_bytes(rank),
    }
    return {"details": details}


def _matmul_flops(rank: Rank) -> float:
    n, dtype = MATRIX[rank.device.type], DTYPES[rank.configuration.dtype]
    a = torch.randn(n, n, device=rank.device).to(dtype)
    b = torch.randn(n, n, device=rank.device).to(dtype)
    out = torch.empty_like(a)
    return 2 * n**3 / _seconds(rank, lambda: torch.mm(a, b, out=out))


def _copy_bandwidth(rank: Rank) -> float:
    """Bytes read and written in a second."""
    size = COPIED_BYTES[rank.device.type]
    source = torch.ones(size // 4, device=rank.device)
    target = torch.empty_like(source)
    return 2 * size / _seconds(rank, lambda: target.copy_(source))


def _all_to_all_s(rank: Rank, size: int) -> float:
    world = dist.get_world_size()
    sent = torch.ones(size // 4 // world * world, device=rank.device)
    received = torch.empty_like(sent)
    return _seconds(rank, lambda: dist.all_to_all_single(received, sent))


def _seconds(rank: Rank, operation: Callable[[], Any]) -> float:
    """Seconds of one `operation`, on all ranks at once: the fastest repetition."""
    operation()
    once = _slowest(rank, operation, 1)
    least = min(LEAST_CALLS[rank.device.type], int(MOST_S / once))
    calls = max(1, least, int(SECONDS / once))
    times: List[float] = []
    for _ in range(REPETITIONS):
        rank.enter(rank.phase)
        times.append(_slowest(rank, operation, calls))
    return min(times)


def _slowest(rank: Rank, operation: Callable[[], Any], calls: int) -> float:
    """Seconds of one of `calls` operations on the slowest rank; the same number on every rank."""
    if rank.device.type == "cuda":
        torch.cuda.synchronize()
    barrier(rank.device)
    seconds = seconds_per_call(operation, calls, rank.device)
    took = torch.tensor([seconds], dtype=torch.float64, device=rank.device)
    dist.all_reduce(took, op=dist.ReduceOp.MAX)
    return float(took.item())


def _gpu_memory_bytes(rank: Rank) -> int:
    """Of this rank's GPU; 0 on CPU, where ranks share what the controller sees."""
    if rank.device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(rank.device).total_memory)
