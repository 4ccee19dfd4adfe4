"""A server whose ranks are functions of this file, and its host.

`python -m tests.worker.serving CASE [polling]` prints the server's answers, a line of JSON each,
until every rank has ended, and how many processes are left then. With `polling` the kernel
announces no process's end.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.worker import children, orphans, server
from bench.worker.rank import HEARTBEAT, Rank

PATIENCE_S = 60.0
BIG = 5_000_000

heartbeat = mmap.mmap(-1, 2 * HEARTBEAT.size)


def report(pipe: int, text: str = "done") -> None:
    os.write(pipe, json.dumps(text).encode() + b"\n")


def daemon() -> None:
    """Leave something behind that holds all that this process holds, and lives on."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(PATIENCE_S)
        os._exit(0)


def leaves_a_daemon(index: int, pipe: int) -> None:
    daemon()
    if index == 0:
        report(pipe)
    os._exit(0)


def talks_nonsense(index: int, pipe: int) -> None:
    os.write(pipe, b'\xff\xfe\n{"op": "ended"}\n\nhalf a line')
    os._exit(0)


def closes_its_pipe(index: int, pipe: int) -> None:
    os.close(pipe)
    Rank(index, None, heartbeat).enter("still here")  # type: ignore[arg-type]
    time.sleep(0.5)
    os._exit(3)


def raises(index: int, pipe: int) -> None:
    raise RuntimeError("on purpose")


def has_a_long_phase(index: int, pipe: int) -> None:
    rank = Rank(index, None, heartbeat)  # type: ignore[arg-type]
    rank.enter("é" * 9 + "x" + "é" * 9, 7)
    time.sleep(0.5)
    report(pipe, rank.phase)
    os._exit(0)


def reports_much(index: int, pipe: int) -> None:
    report(pipe, "x" * BIG) if index else os.write(pipe, b"y")
    os._exit(0)


def reports_slowly(index: int, pipe: int) -> None:
    for byte in b'"slow"':
        os.write(pipe, bytes([byte]))
        time.sleep(0.2)
    os.write(pipe, b"\n")
    os._exit(0)


def dies_of_a_nameless_signal(index: int, pipe: int) -> None:
    os.kill(os.getpid(), 40)


def reports_too_much(index: int, pipe: int) -> None:
    view = memoryview(b"z" * BIG + b"\n" + b'"short"\n')
    while view:
        view = view[os.write(pipe, view) :]
    os._exit(0)


def serve(commands: int, answers: int, case: Callable[[int, int], None]) -> None:
    """Be the server."""
    signal.alarm(int(PATIENCE_S))
    orphans.adopt()
    one = server.Server(commands, answers)
    one._started([one._fork(index, case) for index in range(2)], heartbeat, Path.cwd())
    one.serve()


def lines(answers: int) -> Iterator[Any]:
    """What the server says; None where it is silent for a while."""
    buffer = b""
    while True:
        if not select.select([answers], [], [], 0.1)[0]:
            yield None
            continue
        data = os.read(answers, 1 << 20)
        if not data:
            return
        *whole, buffer = (buffer + data).split(b"\n")
        yield from map(json.loads, whole)


def main() -> None:
    case = globals()[sys.argv[1]]
    if "polling" in sys.argv:
        del os.pidfd_open
    if case is reports_too_much:
        children.MOST_REPORT_BYTES = 1000
    (commands_read, commands), (answers, answers_write) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(commands)
        os.chdir(tempfile.gettempdir())
        serve(commands_read, answers_write, case)
        print(json.dumps({"op": "left", "processes": list(orphans._children(os.getpid()))}))
        sys.stdout.flush()
        os._exit(0)
    os.close(answers_write)
    os.close(commands_read)
    exited = 0
    for line in lines(answers):
        if line is None:
            os.write(commands, b'{"op": "progress"}\n')
            continue
        print(json.dumps(line), flush=True)
        exited += line["op"] == "exited"
        if exited == 2:
            break
    os.close(commands)
    os.wait()


if __name__ == "__main__":
    main()
