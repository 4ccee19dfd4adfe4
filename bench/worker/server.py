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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from bench.lines import Lines
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
from bench.worker.children import Child, Children
from bench.worker.code import imported
from bench.worker.rank import HEARTBEAT, Request

_STACK_WAIT_S = 1.0
"""How long ranks get to write their stacks: microseconds would do, unless the machine swaps."""
_STACK_CHARACTERS = 1 << 20
"""At most of a rank's stack; each of its threads has some hundred lines."""
_FLIGHT_RECORDER_WAIT_S = 5.0
"""How long ranks get to write what their collectives did; torch looks once a second for a wish."""


@dataclass
class Running:
    """The trial in flight."""

    children: Children
    heartbeat: mmap.mmap
    scratch: Path


class Server:
    """Reads requests, forks, relays."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._selector = selectors.DefaultSelector()
        self._selector.register(commands, selectors.EVENT_READ)
        self._lines = Lines()
        self._running: Optional[Running] = None

    def answer(self, **message: Any) -> None:
        """Send one line to the host."""
        view = memoryview(json.dumps(message).encode() + b"\n")
        while view:
            view = view[os.write(self._answers, view) :]

    def serve(self) -> None:
        """Until the host closes its end."""
        while True:
            children = None if self._running is None else self._running.children
            patience = None if children is None else children.patience()
            for key, _ in self._selector.select(patience):
                if key.fd == self._commands:
                    if not self._read_commands():
                        self._kill()
                        return
                elif children is not None:
                    children.readable(key.fd, key.data)
            if children is not None and patience is not None:
                for child in children.alive():
                    children.look_after(child)

    def _read_commands(self) -> bool:
        data = os.read(self._commands, 1 << 20)
        for line in self._lines.take(data):
            request = json.loads(line.content)
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
        pids = self._running.children.pids if self._running is not None else []
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
            try:
                child(index, write_end)
            except BaseException:  # noqa: BLE001 (it reported before, or its end says enough)
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(write_end)
        return Child.of(index, pid, read_end)

    def _started(self, children: List[Child], heartbeat: mmap.mmap, scratch: Path) -> None:
        watched = Children(children, self._selector, self.answer)
        self._running = Running(watched, heartbeat, scratch)

    def _on_progress(self) -> None:
        running = self._running
        ranks = range(len(running.children.pids)) if running is not None else ()
        beats = [self._beat(running, rank) for rank in ranks if running is not None]
        self.answer(op="progress", beats=beats)

    def _beat(self, running: Running, rank: int) -> Dict[str, Any]:
        """How far a rank is; the phase may have been cut inside a character."""
        count, step, phase = HEARTBEAT.unpack_from(running.heartbeat, rank * HEARTBEAT.size)
        return {
            "rank": rank,
            "count": count,
            "step": step if step >= 0 else None,
            "phase": phase.rstrip(b"\0").decode(errors="ignore"),
            "received": running.children.received(rank),
        }

    def _on_stacks(self) -> None:
        running = self._running
        if running is None:
            self.answer(op="stacks", stacks={})
            return
        alive = running.children.alive()
        for c in alive:
            os.kill(c.pid, signal.SIGUSR1)
        files = {c.index: running.scratch / f"stack-{c.index}" for c in alive}
        give_up = time.monotonic() + _STACK_WAIT_S
        while time.monotonic() < give_up and not all(_has_text(path) for path in files.values()):
            time.sleep(0.02)
        time.sleep(0.02)  # the last line of the last stack
        stacks = {index: _text(path) for index, path in files.items() if path.is_file()}
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
        running.children.kill()
        orphans.end(known=set())
        running.heartbeat.close()

    def _on_code(self, configuration: Dict[str, Any]) -> None:
        trial = Configuration.model_validate(configuration)
        self.answer(op="code", **imported().fingerprint(trial))

    def _on_preload(self, modules: List[str]) -> None:
        preload.import_modules(modules)
        gc.freeze()


def _has_text(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _text(path: Path) -> str:
    with path.open(errors="backslashreplace") as file:
        return file.read(_STACK_CHARACTERS)


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
