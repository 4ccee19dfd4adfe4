"""The warm server as seen from the controller: a process and a line of JSON each way."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from bench.controller import scratch_folder
from bench.controller.code import DISK
from bench.controller.interpreter import Interpreter, users_pythonpath
from bench.controller.vital_signs import LOOK_S, VitalSigns
from bench.lines import Lines
from bench.trial import Configuration
from bench.whole_file import whole_file

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 300.0
"""Importing torch and DeepSpeed takes 5 s on a warm disk and minutes on a cold network one."""
_OVERRULING = ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE")
"""Variables, set in images of NGC, by which float32 products are TF32 whatever `matmul` says."""


class ServerBroken(Exception):
    """The environment lets no server start; the message is for the record."""


class ServerLost(Exception):
    """A server ended, was stopped or gives no answer: that says nothing of its environment.

    The message is for the record.
    """


class ServerProcess:
    """One interpreter's server. `versions` and `warnings` are what it observed of itself."""

    def __init__(self, interpreter: Interpreter, device: str, shm: bool, log: Path) -> None:
        self.interpreter = interpreter
        self._unread = Lines()
        self._lines: list[dict[str, Any]] = []
        self._lost: str | None = None
        self._while = " while it started"
        self._known = _read_names(interpreter.preload)
        self.scratch = scratch_folder.make()
        self._fingerprints: dict[str, dict[str, Any]] = {}
        before = DISK.stamps()
        try:
            self._process = self._start(device, shm, log)
        except BaseException:
            scratch_folder.remove(self.scratch)
            raise
        self._signs = VitalSigns(self._process)
        try:
            ready = self._await_ready(log)
        except BaseException:
            self.close()
            raise
        self._while = ""
        self.versions: dict[str, Any] = ready["versions"]
        self.sources: dict[str, list[int]] = ready["sources"]
        """Time of the last change [ns] and size [bytes] of spbench's files when it started."""
        self.torn = self.sources != before
        """Whether a file of spbench's changed while the server imported them."""
        self.warnings: list[str] = [*_ignored(), *ready["warnings"]]
        asked, self._known = self._known, ready["preloaded"]
        self._refused = sorted(set(asked) - set(self._known))
        """What ranks once imported and a server cannot; nobody waits for it again."""

    def _start(self, device: str, shm: bool, log: Path) -> subprocess.Popen[bytes]:
        python = str(self.interpreter.python)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            commands_read, self._commands = os.pipe()
            self._answers, answers_write = os.pipe()
            numbers = [commands_read, answers_write, os.getpid(), int(shm)]
            command = [python, "-m", "bench.worker.server", *map(str, numbers), *self._known]
            try:
                return subprocess.Popen(
                    command,
                    env=_environment(self.interpreter, device, self.scratch),
                    cwd=self.scratch,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(commands_read, answers_write),
                    start_new_session=True,  # the terminal's Ctrl-C is not for the server
                )
            except BaseException as error:
                os.close(self._commands)
                os.close(self._answers)
                if isinstance(error, OSError) and error.filename == python:
                    raise ServerBroken(f"{python} does not start: {error.strerror}") from error
                raise
            finally:
                os.close(commands_read)
                os.close(answers_write)

    def _await_ready(self, log: Path) -> dict[str, Any]:
        try:
            answer = self.receive(START_TIMEOUT_S)
        except ServerLost as lost:
            ended = self._signs.end()
            if ended is not None and ended.signal is None:  # it left by itself
                raise ServerBroken(f"{lost}; see {log}") from None
            raise
        if answer is None:
            raise ServerBroken(
                f"the interpreter did not start within {START_TIMEOUT_S:.0f} s; see {log}"
            )
        if answer["op"] == "broken":
            last = answer["traceback"].strip().splitlines()[-1]
            raise ServerBroken(
                f"importing torch and DeepSpeed failed: {last}\n{answer['traceback']}"
            )
        return answer

    def send(self, **request: Any) -> None:
        """Write one request line; raises `ServerLost`."""
        self._require()
        line = json.dumps(request).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._commands, line) :]
        except BrokenPipeError:
            raise self._given_up(self._epitaph()) from None

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """The next line from the server, or None when there was none for `timeout_s`.

        Raises `ServerLost`, within some seconds where the server is stopped.
        """
        self._require()
        deadline = time.monotonic() + timeout_s
        while not self._lines:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            if not select.select([self._answers], [], [], min(left, LOOK_S))[0]:
                if self._signs.has_stopped():
                    raise self._given_up("was stopped (SIGSTOP)")
                continue
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise self._given_up(self._epitaph())
            self._lines += [json.loads(line.content) for line in self._unread.take(data)]
        return self._lines.pop(0)

    def code_of(self, configuration: Configuration) -> dict[str, str]:
        """The fingerprint of what this server's ranks run of `configuration`, by role."""
        code: dict[str, str] = self._fingerprint(configuration)["code"]
        return code

    def known_code(self, configuration: Configuration) -> dict[str, str] | None:
        """The same without asking: None where the server was not asked while it lived."""
        found = self._fingerprints.get(configuration.hash)
        return None if found is None else found["code"]

    def reference_code(self, configuration: Configuration) -> str:
        """Digest of what makes the reference of `configuration` in this server."""
        return str(self._fingerprint(configuration)["reference"])

    def _fingerprint(self, configuration: Configuration) -> dict[str, Any]:
        key = configuration.hash
        if key not in self._fingerprints:
            content = configuration.model_dump(mode="json")
            answer = self.ask("code", "code", [], START_TIMEOUT_S, configuration=content)
            self._fingerprints[key] = answer
        return self._fingerprints[key]

    def ask(
        self,
        request: str,
        answer: str,
        others: list[dict[str, Any]],
        timeout_s: float,
        **fields: Any,
    ) -> dict[str, Any]:
        """Send a request and wait for its answer; what comes before it is appended to `others`."""
        self.send(op=request, **fields)
        deadline = time.monotonic() + timeout_s
        while (line := self.receive(deadline - time.monotonic())) is not None:
            if line["op"] == answer:
                return line
            others.append(line)
        raise self._given_up(f"did not answer '{request}' within {timeout_s:.0f} s")

    def learn(self, modules: list[str]) -> list[str]:
        """Have the server import what ranks had to import, now and at every later start.

        Returns those of `modules` that it did not know of.
        """
        # our own modules differ from checkout to checkout, and the server imports them by itself
        foreign = {name for name in modules if name.split(".")[0] != "bench"}
        new = sorted(foreign - {*self._known, *self._refused})
        if not new:
            return []
        self.send(op="preload", modules=new)
        self._known += new
        self.interpreter.preload.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.interpreter.preload) as partial:
            partial.write_text(json.dumps([*self._known, *self._refused]))
        return new

    def is_running(self) -> bool:
        """Whether the server may be asked: it has not ended, and is not stopped."""
        return self._lost is None and self._signs.is_running()

    def _require(self) -> None:
        """Raise `ServerLost` where the server was given up already: it gets no second chance."""
        if self._lost is not None:
            raise ServerLost(self._lost)

    def _given_up(self, what: str) -> ServerLost:
        """See the server and its ranks ended, whatever state they are in, and say so."""
        name = self.interpreter.spec.name
        self._lost = f"the server of environment '{name}' {what}{self._while}"
        self._end()
        return ServerLost(self._lost)

    def _epitaph(self) -> str:
        end = self._signs.end()
        return "closed its pipe" if end is None else f"ended by {end.manner}"

    def close(self) -> None:
        """End the server, and with it every rank; remove its scratch folder."""
        self._end()
        for fd in (self._commands, self._answers):
            os.close(fd)
        scratch_folder.remove(self.scratch)

    def _end(self) -> None:
        # of one that was reaped the number may be another's by now
        ranks = _descendants(self._process.pid) if self._process.poll() is None else []
        self._process.kill()  # its ranks die with it (PR_SET_PDEATHSIG)
        self._process.wait()
        for rank in ranks:  # and what they started, which may have left their group
            with contextlib.suppress(psutil.NoSuchProcess):
                rank.kill()
        psutil.wait_procs(ranks, timeout=3)


def _environment(interpreter: Interpreter, device: str, scratch: Path) -> dict[str, str]:
    """The server's environment variables: the user's, and what makes forking and timing sound."""
    variables = {
        key: value for key, value in os.environ.items() if not key.startswith("PYTHONPATH")
    }
    paths = [str(ROOT)]
    if interpreter.spec.python is None:
        variables["PYTHONNOUSERSITE"] = "1"
    else:
        variables["PYTHONDONTWRITEBYTECODE"] = "1"  # the user's interpreter stays as it is
        paths += filter(None, [users_pythonpath()])
    variables.update(
        PATH=os.pathsep.join([str(interpreter.python.parent), variables.get("PATH", os.defpath)]),
        PYTHONPATH=os.pathsep.join(paths),
        DS_ACCELERATOR=device,
        PYTORCH_NVML_BASED_CUDA_CHECK="1",  # counting GPUs must not initialise CUDA before the fork
        OPENBLAS_NUM_THREADS="1",  # numpy's threads would not survive the fork
        TORCH_EXTENSIONS_DIR=str(interpreter.extensions),
        TMPDIR=str(scratch),  # torch leaves files there
        TORCHINDUCTOR_COMPILE_THREADS="1",  # else torch 2.2 forks compile workers when imported
    )
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        variables.pop(name, None)  # of some other launcher around us
    for name in (*_OVERRULING, "SPBENCH_CUDA_VISIBLE_DEVICES"):
        variables.pop(name, None)
    if device == "cuda":  # else CUDA numbers the fastest card 0, and NVML, whose cards we lock, not
        variables.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if device == "cuda" and "CUDA_VISIBLE_DEVICES" in variables:
        # bench.worker.visible_gpus: the import must not see them, the ranks get them back
        variables["SPBENCH_CUDA_VISIBLE_DEVICES"] = variables["CUDA_VISIBLE_DEVICES"]
    variables["CUDA_VISIBLE_DEVICES"] = ""
    if device == "cpu":
        variables.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    return variables


def _ignored() -> list[str]:
    """What `_environment` left out of the user's variables, for the record."""
    found = {name: os.environ[name] for name in _OVERRULING if name in os.environ}
    return [f"spbench: ignored {name}={value}" for name, value in found.items()]


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _read_names(path: Path) -> list[str]:
    """The learnt module names; none when the file is missing or was cut short."""
    try:
        names = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return []
    return [str(name) for name in names]
