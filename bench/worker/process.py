"""A forked process of the server: sets itself up, does its work, and reports what happened.

This is the rank's border: whatever a scenario raises becomes a report, never a lost process.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import mmap
import os
import resource
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

from bench.record import NOT_STARTED
from bench.record_files import shared_memory_note
from bench.worker import report, shared_memory, visible_gpus
from bench.worker.leaving import leave_together
from bench.worker.rank import COLLECTIVES_GIVE_UP, Rank, Request, join

MAX_WARNINGS = 50
_PR_SET_PDEATHSIG = 1


def run_rank(
    index: int, request: Request, heartbeat: mmap.mmap, listener: int, pipe: int, server: int
) -> None:
    """Run rank `index` in this forked process and end it; never returns.

    `listener` is the socket of the rendezvous store (rank 0 takes it), `pipe` takes the one
    JSON line that says what happened, `server` is the pid that must outlive us.
    """
    visible_gpus.restore()
    die_with(server)
    os.setsid()  # one kill then reaches whatever this rank starts
    rank = Rank(index, request, heartbeat)
    seen: Dict[str, Any] = {"observed": rank.observed}
    stores: List[Any] = []
    before = set(sys.modules)
    try:
        _prepare(rank)
        before, notes = set(sys.modules), LibraryNotes()
        seen["warnings"] = notes.collected
        join(rank, lambda: _kept(stores, _store(rank, listener)))
        seen["device"] = _device_name(rank)
        from bench.worker import plugins, sdpa

        try:
            result = plugins.load("scenarios", request.configuration.scenario).run(rank)
        finally:
            rank.observed["sdpa_kernel"] = sdpa.noted()
        _finish_device_work(rank)
        seen["late_imports"] = _imported_since(before)
        line = report.finished(index, result, **seen)
        raised = False
    except BaseException as exception:  # noqa: BLE001 (the rank's border)
        _lift_memory_limit()  # else a rank that reached it cannot say so
        seen["late_imports"] = _imported_since(before)  # by which it may have reached it
        said = report.describe(exception)["message"]
        free = _device_free_bytes(rank, said)  # while its frames hold what they held
        where = {"phase": rank.phase, "step": rank.step, "device_free_bytes": free}
        line = report.raised(index, exception, where, **seen)
        raised = True
    _flush()
    report.send(pipe, line)
    if raised:
        # Leaving now would break the others' connections and bury the cause under their
        # errors; the server ends this process when they have had time to say their own.
        while True:
            signal.pause()
    _leave(rank, stores[0])
    os._exit(0)


def _imported_since(before: Set[str]) -> List[str]:
    """Names of the modules that were imported since `before` was `sys.modules`."""
    return sorted(name for name in set(sys.modules) - before if isinstance(name, str))


def _flush() -> None:
    """Have the log whole before the report; a scenario may have closed what it printed to."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _lift_memory_limit() -> None:
    """Let this process allocate what it could before `bench.worker.metrics.memory.limit`."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _kept(stores: List[Any], store: Any) -> Any:
    stores.append(store)
    return store


def _finish_device_work(rank: Rank) -> None:
    """Wait for the GPU; what failed there unseen raises now, while it can still be reported."""
    if rank.device.type == "cuda":
        import torch

        torch.cuda.synchronize(rank.device)


def _leave(rank: Rank, store: Any) -> None:
    """Wait for the others; this rank has reported, so what happens to them is theirs to say."""
    rank.enter("done")
    try:
        leave_together(store, rank.index, rank.configuration.world, COLLECTIVES_GIVE_UP)
    except RuntimeError as gone:  # the host ends the trial when a peer failed
        print(f"spbench: rank {rank.index} leaves without its peers: {gone}", file=sys.stderr)
        sys.stderr.flush()


def _prepare(rank: Rank) -> None:
    """Output to the log, stacks on SIGUSR1, and the memory that is the server's and not ours."""
    from bench.worker.metrics.memory import anonymous_bytes

    redirect_output(rank.request.log)
    stacks = (rank.request.scratch / f"stack-{rank.index}").open("w")
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    faulthandler.enable(file=sys.stderr)
    shared_memory.watch(shared_memory_note(rank.request.scratch, rank.index))
    rank.shared_bytes = anonymous_bytes()
    rank.enter("setup")


def _store(rank: Rank, listener: int) -> Any:
    """The store that the server opened a port for; rank 0 serves it on that very socket."""
    import torch.distributed as dist

    fields: Dict[str, Any] = {
        "host_name": "127.0.0.1",
        "port": rank.request.store_port,
        "world_size": rank.configuration.world,
        "is_master": rank.index == 0,
        "wait_for_workers": False,
        "master_listen_fd": listener if rank.index == 0 else None,
    }
    try:  # the backend on libuv, the default from 2.4 on, took no socket for some versions
        return dist.TCPStore(**fields, use_libuv=False)
    except TypeError:  # a version that does not know the choice
        return dist.TCPStore(**fields)


def die_with(server: int) -> None:
    """End this process, by SIGKILL, when process `server`, its parent, ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it died before we asked
        os._exit(1)


def redirect_output(log: Path) -> None:
    """Append what this process prints to `log`; give it nothing to read."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)


def _device_name(rank: Rank) -> str:
    if rank.device is None or rank.device.type != "cuda":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name(rank.device))


def _device_free_bytes(rank: Rank, message: str) -> Optional[int]:
    """Free memory of the rank's GPU where a library could not start; None: nobody can tell."""
    if NOT_STARTED not in message or rank.device is None or rank.device.type != "cuda":
        return None
    import torch

    try:
        return int(torch.cuda.mem_get_info(rank.device)[0])
    except RuntimeError:  # the process can use CUDA no more
        return None


class LibraryNotes(logging.Handler):
    """Collects what libraries warn of, each text once: `warnings`, and log lines above INFO."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.collected: List[str] = []
        self._show = warnings.showwarning
        warnings.showwarning = self._on_warning  # type: ignore[assignment]
        logging.getLogger().addHandler(self)
        for name in ("DeepSpeed", "torch"):
            if not logging.getLogger(name).propagate:
                logging.getLogger(name).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._note(f"{record.name}: {record.getMessage()}")
        except Exception:  # noqa: BLE001 (a line whose arguments do not fit it)
            self.handleError(record)

    def _on_warning(
        self, message: Any, category: Any, filename: Any, lineno: Any, *rest: Any
    ) -> None:
        self._note(f"{category.__name__}: {message}")
        self._show(message, category, filename, lineno, *rest)

    def _note(self, text: str) -> None:
        text = text[:500]
        if text not in self.collected and len(self.collected) < MAX_WARNINGS:
            self.collected.append(text)
