"""A fire drill: training in which one rank fails on purpose, to see that the harness notices.

`options.fault` says how rank `options.rank` (default: the last) fails in the backward of the
second step:

    raise    raises a RuntimeError
    kill     is killed by SIGKILL
    exit     leaves with exit code 3 and without a word
    hang     never joins the collective that the others are in
    spin     computes for ever, while the others wait
    memory   allocates until `memory_limit`, or the device, stops it
    talk     prints 30 MB, and goes on
    litter   makes files in shared memory, in three ways, and raises without removing them
    none     does not fail

and `late` lets it do all its work, but end long after its peers, and need the store until then;
with `options.late_raises` it then raises. On GPU `spin` ends as `hang`: computing without end in
one phase is no progress there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch
import torch.distributed as dist

from bench.worker.mesh import Mesh
from bench.worker.metrics import memory
from bench.worker.metrics.clock import CpuClock, CudaClock
from bench.worker.rank import Rank
from bench.worker.reference import Reference
from bench.worker.training import Trainer

_BLOCK_ELEMENTS = 1 << 22
_SHARED_MEMORY = Path("/dev/shm")
LATE_S = 1.0
"""How much later than its peers the late rank ends: they need milliseconds."""


def run(rank: Rank) -> Dict[str, Any]:
    """Two steps, the second with the fault. Returns no measurements: none were meant.

    Raises:
        ValueError: `options.fault` is none of the above.
    """
    options = rank.configuration.options
    fault = _FAULTS.get(options.get("fault", "none"))
    if fault is None:
        raise ValueError(f"options.fault={options['fault']}; allowed: {', '.join(_FAULTS)}")
    clock = CudaClock() if rank.device.type == "cuda" else CpuClock()
    memory.limit(rank.device.type, rank.configuration.memory_limit)
    mesh = Mesh.of(rank)
    trainer = Trainer(
        rank.configuration,
        mesh,
        Reference(rank.reference, rank.configuration.model),
        rank.device,
        rank.beat,
    )
    trainer.step(rank.entering(0), clock, lambda: None)
    at_fault = rank.index == options.get("rank", mesh.world - 1)

    def enter(phase: str) -> None:
        rank.enter(phase, 1)
        if phase == "backward" and at_fault:
            fault(rank.device)

    trainer.step(enter, clock, lambda: None)
    if at_fault and options.get("fault") == "late":
        _end_late(rank, raises=bool(options.get("late_raises")))
    return {}


def _end_late(rank: Rank, raises: bool) -> None:
    rank.enter("results")
    time.sleep(LATE_S)
    store = dist.distributed_c10d._get_default_store()
    store.set("late", "yes")
    store.get("late")
    if raises:
        raise RuntimeError("raised on purpose")


def _raise(_: torch.device) -> None:
    raise RuntimeError("raised on purpose")


def _kill(_: torch.device) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(_: torch.device) -> None:
    os._exit(3)


def _hang(device: torch.device) -> None:
    dist.recv(torch.empty(1, device=device), src=(dist.get_rank() + 1) % dist.get_world_size())
    _wait(device)  # a receive on GPU only enqueues


def _spin(device: torch.device) -> None:
    while True:
        torch.randn(256, 256, device=device) @ torch.randn(256, 256, device=device)
        _wait(device)


def _memory(device: torch.device) -> None:
    held: List[torch.Tensor] = []
    while True:
        held.append(torch.ones(_BLOCK_ELEMENTS, device=device))


def _talk(_: torch.device) -> None:
    for _line in range(30_000):
        print("x" * 999)


def _litter(_: torch.device) -> None:
    """A file that Python opens, one that a library maps, and one of torch's kind, by our pid."""
    pid = os.getpid()
    _SHARED_MEMORY.joinpath("spbench-drill-opened").write_bytes(bytes(1000))
    libc = ctypes.CDLL(None)
    for name in (b"spbench-drill-mapped", b"torch_%d_drill" % pid):
        fd = libc.open(bytes(_SHARED_MEMORY) + b"/" + name, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, 1000)
        if b"mapped" not in name:
            os.close(fd)
    raise RuntimeError("raised on purpose")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _none(_: torch.device) -> None:
    """No fault in the step."""


_FAULTS: Dict[str, Callable[[torch.device], None]] = {
    "raise": _raise,
    "kill": _kill,
    "exit": _exit,
    "hang": _hang,
    "spin": _spin,
    "memory": _memory,
    "talk": _talk,
    "litter": _litter,
    "none": _none,
    "late": _none,
}
