"""One rank of a trial: a freshly forked process that sets itself up, runs a scenario and reports.

This is the rank's border: whatever the scenario raises becomes a report, never a lost process.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import logging
import mmap
import os
import resource
import signal
import struct
import sys
import traceback
import warnings
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from bench.trial import Configuration

HEARTBEAT = struct.Struct("<Qi20s")
"""Progress of a rank in shared memory: a counter, the step (-1: none), the phase's name."""
MAX_WARNINGS = 50
_PR_SET_PDEATHSIG = 1
_COLLECTIVES_GIVE_UP = timedelta(hours=6)  # far beyond any deadline: the host owns time


@dataclass(frozen=True)
class Request:
    """What the server tells a rank about its trial."""

    configuration: Configuration
    scratch: Path
    """Folder of this trial for stacks; removed afterwards."""
    log: Path
    reference: Path
    store_port: int
    threads: int


@dataclass
class Rank:
    """What a scenario sees of the rank it runs on."""

    index: int
    request: Request
    heartbeat: mmap.mmap
    device: Any = None  # torch.device; torch is not imported here
    phase: str = "setup"
    step: Optional[int] = None
    _beats: int = field(default=0, repr=False)

    @property
    def configuration(self) -> Configuration:
        """What is measured."""
        return self.request.configuration

    @property
    def reference(self) -> Path:
        """Folder of the exact reference and of the initial weights."""
        return self.request.reference

    def enter(self, phase: str, step: Optional[int] = None) -> None:
        """Say where this rank is: for the record if it fails, and as a sign of life."""
        self.phase, self.step = phase, step
        self._beats += 1
        beat = HEARTBEAT.pack(self._beats, -1 if step is None else step, phase.encode())
        start = self.index * HEARTBEAT.size
        self.heartbeat[start : start + HEARTBEAT.size] = beat

    def entering(self, step: int) -> Callable[[str], None]:
        """`enter` for the phases of one step."""
        return lambda phase: self.enter(phase, step)


def main(index: int, request: Request, heartbeat: mmap.mmap, listener: int, report: int, server: int) -> None:
    """Run rank `index` in this forked process and end it; never returns.

    `listener` is the socket of the rendezvous store (rank 0 takes it), `report` the pipe for
    the one JSON line that says what happened, `server` the pid that must outlive us.
    """
    _die_with(server)
    os.setsid()  # one kill then reaches whatever this rank starts
    _redirect_output(request.log)
    stacks = (request.scratch / f"stack-{index}").open("w")
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    faulthandler.enable(file=sys.stderr)
    rank = Rank(index, request, heartbeat)
    rank.enter("setup")
    before = set(sys.modules)
    notes = _LibraryNotes()
    try:
        _set_up(rank, listener)
        from bench.worker import plugins

        result = plugins.load("scenarios", request.configuration.scenario).run(rank)
        message: Dict[str, Any] = {"outcome": "finished", "result": result}
    except BaseException as exception:
        where = {"rank": index, "phase": rank.phase, "step": rank.step}
        message = {"outcome": "raised", "error": {**_describe(exception), **where}}
    message["rank"] = index
    message["late_imports"] = sorted(set(sys.modules) - before)
    message["warnings"] = notes.collected
    message["device"] = _device_name(rank)
    message["cpu_s"] = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    sys.stdout.flush()
    sys.stderr.flush()
    _send(report, message)
    if message["outcome"] == "raised":
        # Leaving now would break the others' connections and bury the cause under their
        # errors; the server ends this process when they have had time to say their own.
        while True:
            signal.pause()
    os._exit(0)


def _set_up(rank: Rank, listener: int) -> None:
    """Threads, device, process group: everything before the scenario."""
    import torch
    import torch.distributed as dist

    c, world = rank.configuration, rank.configuration.world
    os.environ.update(
        RANK=str(rank.index),
        LOCAL_RANK=str(rank.index),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        LOCAL_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(rank.request.store_port),
    )
    torch.set_num_threads(rank.request.threads)
    torch.manual_seed(c.seed)
    rank.device = torch.device("cpu")
    if c.comm.device == "cuda":
        gpu = rank.index % torch.cuda.device_count()
        os.environ["LOCAL_RANK"] = str(gpu)
        if c.comm.oversubscribe:
            # NCCL refuses two ranks of one host on one GPU; under different host ids it
            # takes them for different machines
            os.environ["NCCL_HOSTID"] = f"spbench-{rank.index}"
        torch.cuda.set_device(gpu)
        rank.device = torch.device("cuda", gpu)
    store = dist.TCPStore(
        "127.0.0.1",
        rank.request.store_port,
        world,
        is_master=rank.index == 0,
        wait_for_workers=False,
        master_listen_fd=listener if rank.index == 0 else None,
    )
    backend = "nccl" if c.comm.name == "nccl" else "gloo"
    dist.init_process_group(
        backend, store=store, rank=rank.index, world_size=world, timeout=_COLLECTIVES_GIVE_UP
    )
    import deepspeed

    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    if c.comm.name == "nccl_over_gloo":
        from bench.worker import nccl_over_gloo

        nccl_over_gloo.install()


def _die_with(server: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it died before we asked
        os._exit(1)


def _redirect_output(log: Path) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)


def _describe(exception: BaseException) -> Dict[str, str]:
    """Type, message and traceback, cut to a length that a record can carry."""
    kind = type(exception)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    text = "".join(traceback.format_exception(kind, exception, exception.__traceback__))
    return {"type": name, "message": str(exception)[:4000], "traceback": text[-20000:]}


def _device_name(rank: Rank) -> str:
    if rank.device is None or rank.device.type != "cuda":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name(rank.device))


def _send(fd: int, message: Dict[str, Any]) -> None:
    view = memoryview(json.dumps(message).encode() + b"\n")
    while view:
        view = view[os.write(fd, view) :]


class _LibraryNotes(logging.Handler):
    """Collects what libraries warn of, each text once: `warnings` and log lines of level WARNING."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.collected: List[str] = []
        self._show = warnings.showwarning
        warnings.showwarning = self._on_warning
        logging.getLogger().addHandler(self)
        for name in ("DeepSpeed", "torch"):
            if not logging.getLogger(name).propagate:
                logging.getLogger(name).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._note(f"{record.name}: {record.getMessage()}")

    def _on_warning(self, message: Any, category: Any, filename: Any, lineno: Any, *rest: Any) -> None:
        self._note(f"{category.__name__}: {message}")
        self._show(message, category, filename, lineno, *rest)

    def _note(self, text: str) -> None:
        text = text[:500]
        if text not in self.collected and len(self.collected) < MAX_WARNINGS:
            self.collected.append(text)


def make_reference(
    configuration: Configuration, folder: Path, log: Path, threads: int, report: int, server: int
) -> None:
    """Make the exact reference in this forked process and end it; never returns."""
    _die_with(server)
    os.setsid()
    _redirect_output(log)
    try:
        import torch

        from bench.worker import reference

        torch.set_num_threads(threads)
        reference.create(folder, configuration)
        message: Dict[str, Any] = {"outcome": "finished"}
    except BaseException as exception:
        message = {"outcome": "raised", "error": _describe(exception)}
    _send(report, {"rank": 0, **message})
    os._exit(0)
