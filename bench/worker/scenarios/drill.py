"""A fire drill: training in which one rank fails on purpose, to see that the harness notices.

`options.fault` says how rank `options.rank` (default: the last) fails in the backward of the
second step:

    raise    raises a RuntimeError
    kill     is killed by SIGKILL
    exit     leaves with exit code 3 and without a word
    hang     never joins the collective that the others are in
    spin     computes for ever, while the others wait
    memory   allocates until `memory_limit` stops it
    none     does not fail
"""

from __future__ import annotations

import os
import signal
from typing import Any, Callable, Dict, List

import torch
import torch.distributed as dist

from bench.worker.mesh import Mesh
from bench.worker.metrics import memory
from bench.worker.metrics.clock import CpuClock
from bench.worker.rank import Rank
from bench.worker.reference import Reference
from bench.worker.training import Trainer

_BLOCK_ELEMENTS = 1 << 22


def run(rank: Rank) -> Dict[str, Any]:
    """Two steps, the second with the fault. Returns no measurements: none were meant.

    Raises:
        ValueError: `options.fault` is none of the above.
    """
    options = rank.configuration.options
    fault = _FAULTS.get(options.get("fault", "none"))
    if fault is None:
        raise ValueError(f"options.fault={options['fault']}; allowed: {', '.join(_FAULTS)}")
    memory.limit(rank.device.type, rank.configuration.memory_limit)
    mesh = Mesh.create(rank.configuration.sp)
    trainer = Trainer(
        rank.configuration, mesh, Reference(rank.reference, rank.configuration.model), rank.device
    )
    trainer.step(rank.entering(0), CpuClock(), lambda: None)
    at_fault = rank.index == options.get("rank", mesh.world - 1)

    def enter(phase: str) -> None:
        rank.enter(phase, 1)
        if phase == "backward" and at_fault:
            fault()

    trainer.step(enter, CpuClock(), lambda: None)
    return {}


def _raise() -> None:
    raise RuntimeError("raised on purpose")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit() -> None:
    os._exit(3)


def _hang() -> None:
    dist.recv(torch.empty(1), src=(dist.get_rank() + 1) % dist.get_world_size())


def _spin() -> None:
    while True:
        torch.randn(256, 256) @ torch.randn(256, 256)


def _memory() -> None:
    held: List[torch.Tensor] = []
    while True:
        held.append(torch.ones(_BLOCK_ELEMENTS))


def _none() -> None:
    """No fault."""


_FAULTS: Dict[str, Callable[[], None]] = {
    "raise": _raise,
    "kill": _kill,
    "exit": _exit,
    "hang": _hang,
    "spin": _spin,
    "memory": _memory,
    "none": _none,
}
