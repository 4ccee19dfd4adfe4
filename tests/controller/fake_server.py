"""Stands in for `bench.worker.server`, without torch: it answers, dies or stops as was planned.

Each start takes the next line of `plan` in its folder: `MOMENT what`. MOMENT is `start` or a
request; what is the number of a signal that the server gives itself, `exit`, or `fill`: it fills
the disk of the log of its ranks and exits. At the MOMENT `made` the signal is for the process that
makes the reference; one that is stopped is a process indeed. After the last line it serves. Each
start notes its pid in `starts`. It starts in no time, since it imports nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from bench.controller.interpreter import Interpreter


def interpreter(folder: Path, *plan: str) -> Interpreter:
    """An interpreter of which every server is a fake one that notes its starts in `folder`."""
    from bench.controller.code import DISK
    from bench.controller.interpreter import Interpreter
    from tests.conftest import spec

    folder.mkdir(exist_ok=True)
    (folder / "plan").write_text("\n".join(plan))
    made = spec("torch-2.13")
    versions = {"torch": made.torch, "deepspeed": made.deepspeed, "python": "3.11"}
    versions["python_path"] = sys.executable
    ready = {"versions": versions, "warnings": [], "preloaded": [], "sources": DISK.stamps()}
    (folder / "ready").write_text(json.dumps(ready))
    python = folder / "python"
    program = f"shift 2\nexec {sys.executable} -S {__file__} {folder} $@\n"
    python.write_text(f"#!/bin/sh\n{program}")
    python.chmod(0o755)
    return Interpreter(made, python, folder, folder / "preload.json")


def starts(folder: Path) -> list[int]:
    """The pids of the servers that were started so far."""
    path = folder / "starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


class FakeServer:
    """Speaks for ranks that there are not."""

    def __init__(self, answers: int, moment: str, what: str) -> None:
        self._answers, self._moment, self._what = answers, moment, what
        self._maker = 0

    def reached(self, moment: str, log: Optional[str] = None) -> None:
        """Do what is planned for `moment`."""
        if moment != self._moment:
            return
        if self._what == "fill":
            with contextlib.suppress(OSError), Path(str(log)).open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(1024))
            sys.exit(1)
        if self._what == "exit":
            sys.exit(3)
        os.kill(os.getpid(), int(self._what))

    def say(self, op: str, **message: Any) -> None:
        """One line to the controller."""
        os.write(self._answers, json.dumps({"op": op, **message}).encode() + b"\n")

    def serve(self, commands: int) -> None:
        """Answer until the controller closes its end."""
        with os.fdopen(commands) as requests:
            for line in requests:
                request = json.loads(line)
                self.reached(request["op"], request.get("log"))
                self.answer(**request)

    def lose_maker(self, number: int) -> None:
        """Have signal `number` end or stop what makes the reference, this once."""
        self._moment = ""
        if number == signal.SIGSTOP:
            self._maker = os.fork() or stop()
            self.say("forked", pids=[self._maker], store_port=0, threads=1)
        else:
            self.say("forked", pids=[], store_port=0, threads=1)
            self.say("exited", rank=0, signal=number, exit_code=None)

    def end_maker(self) -> None:
        """Kill the process that was to make the reference, if there is one."""
        if self._maker:
            os.kill(self._maker, signal.SIGKILL)
            os.waitpid(self._maker, 0)
            self._maker = 0

    def answer(self, op: str, **request: Any) -> None:
        """What the real server would answer where all goes well."""
        if op == "code":
            self.say("code", code={}, reference="0")
        elif op == "kill":
            self.end_maker()
            self.say("ended")
        elif op == "progress":
            self.say("progress", beats=[])
        elif op in ("reference", "run"):
            world = 1 if op == "reference" else request["configuration"]["world"]
            if op == "reference" and self._moment == "made":
                self.lose_maker(int(self._what))
                return
            self.say("forked", pids=[], store_port=0, threads=1)
            for rank in range(world):
                result = {"samples": None, "memory": None, "gradient": None}
                report = json.dumps({"rank": rank, "outcome": "finished", "result": result})
                self.say("rank", rank=rank, report=report, bytes=len(report))
                self.say("exited", rank=rank, signal=None, exit_code=0)


def stop() -> int:
    """Stop this process; it has nothing else to do."""
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)


def main() -> None:
    """`fake_server.py FOLDER COMMANDS ANSWERS …`, as the controller calls its server."""
    folder, commands, answers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    plan, before = (folder / "plan").read_text().splitlines(), len(starts(folder))
    with (folder / "starts").open("a") as noted:
        noted.write(f"{os.getpid()}\n")
    moment, _, what = plan[before].partition(" ") if before < len(plan) else ("", "", "")
    server = FakeServer(answers, moment, what)
    server.reached("start")
    server.say("ready", **json.loads((folder / "ready").read_text()))
    server.serve(commands)


if __name__ == "__main__":
    main()
