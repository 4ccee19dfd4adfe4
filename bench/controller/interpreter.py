"""An interpreter that trials run in, and the questions it can be asked without touching it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.trial import EnvironmentSpec

CURRENT = "current"
"""`python: current` stands for the user's active interpreter."""

OLDEST_PYTHON = (3, 9)
PROBE_TIMEOUT_S = 60.0
CHECK_TIMEOUT_S = 600.0

# Neither of the two imports torch before it has to: a probe is cheap, a check is not.
_PROBE = """
import importlib.metadata as metadata, importlib.util, json, sys
sys.path[:] = filter(None, sys.path)  # a worker does not start in the current folder
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        found = importlib.util.find_spec(name)
        return "unknown" if found is not None and found.origin else None
print(json.dumps({
    "python": list(sys.version_info[:3]),
    "torch": version("torch"),
    "deepspeed": version("deepspeed"),
}))
"""
_CHECK = """
import json, os, sys, time
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as in a server: beside GPUs, import may need nvcc
start = time.perf_counter()
import torch
torch_s = time.perf_counter() - start
start = time.perf_counter()
import deepspeed
deepspeed_s = time.perf_counter() - start
try:
    torch.zeros(1).numpy()
    bridge = None
except RuntimeError as error:
    bridge = str(error)
print("\\n" + json.dumps({
    "python": sys.version.split()[0],
    "torch": torch.__version__,
    "deepspeed": deepspeed.__version__,
    "torch_s": torch_s,
    "deepspeed_s": deepspeed_s,
    "numpy_bridge": bridge,
}))
"""


class EnvironmentProblem(Exception):
    """An environment cannot be had; the message says what happened and what to do.

    `stage` is how far it came: `resolve` (its requirements exclude one another, or name what does
    not exist), `install` (a package cannot be built or installed), `machine` (disk, network,
    cache: it says nothing about the versions), `interpreter` (a Python that is no good), `gpu` (a
    torch that cannot use this machine's GPUs).
    """

    def __init__(self, message: str, stage: str = "interpreter") -> None:
        super().__init__(message)
        self.stage = stage


@dataclass(frozen=True)
class Interpreter:
    """A Python that has torch and DeepSpeed, and where spbench keeps what belongs to it."""

    spec: EnvironmentSpec
    python: Path
    """The executable as it was found. A virtual environment's `bin/python` is a symlink that
    must not be resolved: Python finds its packages from the path it was called by."""
    extensions: Path
    """Folder for `TORCH_EXTENSIONS_DIR`, this interpreter's alone; exists."""
    preload: Path
    """JSON file for the names of the modules that a server preloads; need not exist yet."""


InterpreterOf = Callable[[EnvironmentSpec], Interpreter]
"""Gives the interpreter of an environment that is there."""
Provide = Callable[[EnvironmentSpec, Callable[[str], None]], Interpreter]
"""Gives the interpreter of an environment, made if need be, and reports what takes long."""


@dataclass(frozen=True)
class Versions:
    """What an interpreter has, as its package metadata says; None: it cannot be imported.

    `unknown`: it can, but has no metadata, as a source tree on the path has none.
    """

    python: tuple[int, ...]
    torch: str | None
    deepspeed: str | None


@dataclass(frozen=True)
class Check:
    """What a real import found."""

    python: str
    torch: str
    deepspeed: str
    torch_s: float
    """Seconds to import torch."""
    deepspeed_s: float
    """Seconds to import DeepSpeed, torch being imported."""
    numpy_bridge: str | None
    """None when torch and numpy can share arrays, else why they cannot."""


def probe(python: Path, pythonpath: str = "") -> Versions:
    """Read the versions in `python` from package metadata, without importing them (about 0.1 s).

    `pythonpath` is what else it may find them on.

    Raises `EnvironmentProblem` when it is no Python that starts.
    """
    if python.is_dir():
        inside = python / "bin" / "python"
        hint = (
            str(inside) if inside.is_file() else "a Python executable that has torch and deepspeed"
        )
        raise EnvironmentProblem(
            f"environment.python={python} is a folder; give the path of {hint}"
        )
    if not python.is_file():
        raise EnvironmentProblem(
            f"environment.python={python}: no such file; give the path of a Python executable "
            "that has torch and deepspeed"
        )
    if not os.access(python, os.X_OK):
        raise EnvironmentProblem(
            f"environment.python={python} is not executable; give the path of a Python executable"
        )
    answer = answer_of(python, _PROBE, PROBE_TIMEOUT_S, pythonpath)
    return Versions(tuple(answer["python"]), answer["torch"], answer["deepspeed"])


def require_complete(python: Path) -> Versions:
    """The versions in `python`; `EnvironmentProblem` unless it has all that a worker needs."""
    versions = probe(python, users_pythonpath())
    if versions.python < OLDEST_PYTHON:
        found = ".".join(map(str, versions.python))
        raise EnvironmentProblem(
            f"environment.python={python} is Python {found}; workers need 3.9 or later"
        )
    missing = [name for name in ("torch", "deepspeed") if getattr(versions, name) is None]
    if missing:
        raise EnvironmentProblem(
            f"environment.python={python} has no {' and no '.join(missing)}; install what is "
            "missing there, or choose one of spbench's own environments (`spbench env list`)"
        )
    return versions


def locate(request: str) -> Path:
    """The path that `environment.python` means: a path, a command's name, or `current`.

    `current` is the running interpreter if it has torch, else that of the active virtual
    environment, else the `python3` or `python` found first on the PATH.
    """
    if request != CURRENT:
        found = None if os.sep in request else shutil.which(request)
        path = Path(found or request).expanduser()
        return Path(os.path.abspath(path))  # noqa: PTH100 (resolve() follows symlinks)
    running = Path(sys.executable)
    if probe(running).torch is not None:
        return running
    active = os.environ.get("VIRTUAL_ENV")
    if active:
        return Path(active) / "bin" / "python"
    for name in ("python3", "python"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise EnvironmentProblem(
        "environment=current: no Python on the PATH and no virtual environment is active; "
        "activate one that has torch and deepspeed, or give environment.python=/path/to/python"
    )


def check(interpreter: Interpreter) -> Check:
    """Import torch and DeepSpeed in a process of their own (seconds, on a GPU machine more).

    Raises `EnvironmentProblem` with the last line of the traceback when that fails.
    """
    path = "" if interpreter.spec.python is None else users_pythonpath()
    return Check(**answer_of(interpreter.python, _CHECK, CHECK_TIMEOUT_S, path))


def bare_environment() -> dict[str, str]:
    """The process environment without what makes one Python see another one's packages."""
    strangers = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in os.environ.items() if name not in strangers}


def users_pythonpath() -> str:
    """The user's PYTHONPATH, which `./spbench` puts aside, in absolute paths; empty: none.

    It belongs to interpreters of the user's own: a source tree of DeepSpeed may be on it.
    """
    paths = os.environ.get("SPBENCH_USER_PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(str(Path(path).absolute()) for path in paths if path)


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill the process group that `process` leads, if it still runs, and reap the leader."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def answer_of(python: Path, program: str, timeout_s: float, pythonpath: str = "") -> dict[str, Any]:
    """Run `program` in `python` and parse the JSON in the last line that it prints.

    Raises `EnvironmentProblem` when there is none within `timeout_s` seconds.
    """
    variables = {"PYTHONDONTWRITEBYTECODE": "1"}  # the user's interpreter stays as it is
    if pythonpath:
        variables["PYTHONPATH"] = pythonpath
    try:
        process = subprocess.Popen(
            [python, "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=bare_environment() | variables,
            start_new_session=True,
        )
    except OSError as error:
        raise EnvironmentProblem(
            f"environment.python={python} does not start ({error.strerror}); "
            "give the path of a Python executable"
        ) from error
    try:
        printed, complained = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentProblem(
            f"environment.python={python} gave no answer within {timeout_s:.0f} s; "
            "try it by hand, then choose another interpreter"
        ) from error
    finally:
        end_group(process)
    try:
        answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    except (IndexError, ValueError) as error:
        said = complained.strip().splitlines() or [f"exit code {process.returncode}"]
        raise EnvironmentProblem(
            f"environment.python={python} does not work: {said[-1]}; repair it, or choose another"
        ) from error
    return answer
