"""The warm server of one environment: imports everything once and forks the ranks of each trial.

It speaks JSON lines over a private pair of file descriptors; stdout belongs to the libraries.
Requests, each a line `{"op": …}`:

    run        fork the ranks of a trial; answers `forked`, then `rank` lines as they report,
               `exited` as they end
    reference  fork one process that makes what a reference folder lacks for `check`: the weights
               alone, or all; answers the same way
    progress   answers `progress`: each rank's beat count, phase and step
    stacks     every rank writes its Python stack, and what its collectives were doing into a
               file of the scratch folder; answers `stacks`
    kill       end what is left of the trial; answers `ended` when no process of it is left
    preload    import modules, so that the next ranks need not
    code       answers `code`: the fingerprint of what ranks of a configuration run, and that
               of what makes its reference

It must stay fit for forking: one thread, no CUDA context, no draw from a random generator.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

from bench.record import GradientMode, Wanted
from bench.trial import Configuration
from bench.worker import (
    flight_recorder,
    orphans,
    preload,
    process,
    reference_process,
    visible_gpus,
)
from bench.worker.code import imported
from bench.worker.rank import HEARTBEAT, Request

_STACK_WAIT_S = 1.0
"""How long ranks get to write their stacks: microseconds would do, unless the machine swaps."""
_FLIGHT_RECORDER_WAIT_S = 5.0
"""How long ranks get to write what their collectives did; torch looks once a second for a wish."""


@dataclass
class Child:
    """One forked process: a rank, or the maker of a reference."""

    index: int
    pid: int
    pipe: int
    buffer: bytes = b""
    status: Optional[int] = None


@dataclass
class Running:
    """The trial in flight."""

    children: List[Child]
    heartbeat: mmap.mmap
    scratch: Path
    open_pipes: Dict[int, Child] = field(default_factory=dict)


class Server:
    """Reads requests, forks, relays."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._selector = selectors.DefaultSelector()
        self._selector.register(commands, selectors.EVENT_READ)
        self._buffer = b""
        self._running: Optional[Running] = None

    def answer(self, **message: Any) -> None:
        """Send one line to the host."""
        view = memoryview(json.dumps(message).encode() + b"\n")
        while view:
            view = view[os.write(self._answers, view) :]

    def serve(self) -> None:
        """Until the host closes its end."""
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._commands:
                    if not self._read_commands():
                        self._kill()
                        return
                elif self._running is not None:
                    self._read_child(self._running, self._running.open_pipes[key.fd])

    def _read_commands(self) -> bool:
        data = os.read(self._commands, 1 << 20)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            getattr(self, "_on_" + request.pop("op"))(**request)
        return bool(data)

    def _on_run(
        self,
        configuration: Dict[str, Any],
        scratch: str,
        log: str,
        reference: str,
        threads: int,
        check: GradientMode,
        check_reason: Optional[str],
    ) -> None:
        trial = Configuration.model_validate(configuration)
        with socket.create_server(("127.0.0.1", 0), backlog=max(128, 2 * trial.world)) as listener:
            request = Request(
                configuration=trial,
                scratch=Path(scratch),
                log=Path(log),
                reference=Path(reference),
                store_port=listener.getsockname()[1],
                threads=threads,
                check=check,
                check_reason=check_reason,
            )
            listener_fd = os.dup(listener.fileno())
            heartbeat = mmap.mmap(-1, trial.world * HEARTBEAT.size)
            server = os.getpid()

            def child(index: int, pipe: int) -> None:
                process.run_rank(index, request, heartbeat, listener_fd, pipe, server)

            children = [self._fork(index, child) for index in range(trial.world)]
            os.close(listener_fd)
        self._started(children, heartbeat, Path(scratch))
        self._forked(request.store_port)

    def _on_reference(
        self,
        configuration: Dict[str, Any],
        folder: str,
        check: Wanted,
        log: str,
        threads: int,
    ) -> None:
        trial = Configuration.model_validate(configuration)
        server = os.getpid()

        def child(index: int, pipe: int) -> None:
            place, output = Path(folder), Path(log)
            reference_process.make_reference(trial, place, check, output, threads, pipe, server)

        maker = self._fork(0, child)
        self._started([maker], mmap.mmap(-1, HEARTBEAT.size), Path(folder))
        self._forked(store_port=0)

    def _forked(self, store_port: int) -> None:
        pids = [c.pid for c in self._running.children] if self._running is not None else []
        threads = len(os.listdir("/proc/self/task"))
        self.answer(op="forked", pids=pids, store_port=store_port, threads=threads)

    def _fork(self, index: int, child: Any) -> Child:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(self._commands)
            os.close(self._answers)
            self._selector.close()
            gc.enable()  # what was imported stays frozen: DeepSpeed collects garbage at every start
            child(index, write_end)
            os._exit(1)
        os.close(write_end)
        return Child(index, pid, read_end)

    def _started(self, children: List[Child], heartbeat: mmap.mmap, scratch: Path) -> None:
        self._running = Running(children, heartbeat, scratch, {c.pipe: c for c in children})
        for c in children:
            self._selector.register(c.pipe, selectors.EVENT_READ)

    def _read_child(self, running: Running, child: Child) -> None:
        data = os.read(child.pipe, 1 << 20)
        *lines, child.buffer = (child.buffer + data).split(b"\n")
        for line in lines:
            self.answer(op="rank", **json.loads(line))
        if not data:
            self._reap(running, child)

    def _reap(self, running: Running, child: Child) -> None:
        self._selector.unregister(child.pipe)
        os.close(child.pipe)
        del running.open_pipes[child.pipe]
        _, child.status = os.waitpid(child.pid, 0)
        _kill_group(child.pid)  # whatever the rank started and left
        code = child.status
        self.answer(
            op="exited",
            rank=child.index,
            signal=os.WTERMSIG(code) if os.WIFSIGNALED(code) else None,
            exit_code=os.WEXITSTATUS(code) if os.WIFEXITED(code) else None,
        )

    def _on_progress(self) -> None:
        beats = []
        if self._running is not None:
            for c in self._running.children:
                start = c.index * HEARTBEAT.size
                count, step, phase = HEARTBEAT.unpack(
                    self._running.heartbeat[start : start + HEARTBEAT.size]
                )
                name = phase.rstrip(b"\0").decode()
                beats.append(
                    {
                        "rank": c.index,
                        "count": count,
                        "step": step if step >= 0 else None,
                        "phase": name,
                    }
                )
        self.answer(op="progress", beats=beats)

    def _on_stacks(self) -> None:
        running = self._running
        if running is None:
            self.answer(op="stacks", stacks={})
            return
        alive = [c for c in running.children if c.status is None]
        for c in alive:
            os.kill(c.pid, signal.SIGUSR1)
        files = {c.index: running.scratch / f"stack-{c.index}" for c in alive}
        give_up = time.monotonic() + _STACK_WAIT_S
        while time.monotonic() < give_up and not all(_has_text(path) for path in files.values()):
            time.sleep(0.02)
        time.sleep(0.02)  # the last line of the last stack
        stacks = {index: path.read_text() for index, path in files.items() if path.exists()}
        flight_recorder.ask(running.scratch, files, _FLIGHT_RECORDER_WAIT_S)
        self.answer(op="stacks", stacks=stacks)

    def _on_kill(self) -> None:
        self._kill()
        self.answer(op="ended")

    def _kill(self) -> None:
        """End every process of the trial in flight and everything those started."""
        running, self._running = self._running, None
        if running is None:
            return
        for c in running.children:
            if c.status is None:
                _kill_group(c.pid)
                os.kill(c.pid, signal.SIGKILL)
        for c in running.children:
            if c.status is None:
                self._selector.unregister(c.pipe)
                os.close(c.pipe)
                _, c.status = os.waitpid(c.pid, 0)
        orphans.end(known=set())
        running.heartbeat.close()

    def _on_code(self, configuration: Dict[str, Any]) -> None:
        trial = Configuration.model_validate(configuration)
        self.answer(op="code", **imported().fingerprint(trial))

    def _on_preload(self, modules: List[str]) -> None:
        preload.import_modules(modules)
        gc.freeze()


def _has_text(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # the rank died before it became a group, or nothing of the group is left


def main() -> None:
    """`python -m bench.worker.server COMMANDS ANSWERS CONTROLLER SHM [MODULE …]`."""
    commands, answers, controller, shm = (int(argument) for argument in sys.argv[1:5])
    for fd in (commands, answers):
        os.set_inheritable(fd, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's to handle
    process.die_with(controller)
    orphans.adopt()
    server = Server(commands, answers)
    notes = process.LibraryNotes()
    try:
        preload.import_stack(bool(shm))
        preloaded = preload.import_modules(sys.argv[5:])
        observed, sources = preload.versions(), imported().stamps
    except BaseException:  # noqa: BLE001 (becomes the record of a broken environment)
        server.answer(op="broken", traceback=traceback.format_exc(), warnings=notes.collected)
        return
    gc.collect()
    gc.freeze()
    gc.disable()
    warnings = [text for text in notes.collected if not visible_gpus.follows_from_hiding(text)]
    server.answer(
        op="ready",
        versions=observed,
        warnings=warnings,
        preloaded=preloaded,
        sources=sources,
    )
    server.serve()


if __name__ == "__main__":
    main()
