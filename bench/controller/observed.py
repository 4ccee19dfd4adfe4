"""Versions that an interpreter has now, as a worker in it would see them, without importing them.

They are read from the files that `torch.__version__` and `deepspeed.__version__` come from: the
packages' metadata leave out a build (`2.2.2` for `2.2.2+cu121`).
"""

from __future__ import annotations

import functools
from pathlib import Path

from bench.controller import environments
from bench.controller.interpreter import EnvironmentProblem, answer_of, locate
from bench.identity import versions_of
from bench.trial import EnvironmentSpec

TIMEOUT_S = 60.0

_PROGRAM = """
import importlib.util, json, os, re, sys
user = os.environ.get("SPBENCH_USER_PYTHONPATH") if {given} else None
sys.path[:] = (user.split(os.pathsep) if user else []) + [path for path in sys.path if path]
def version(package, files, names):
    folder = os.path.dirname(importlib.util.find_spec(package).origin)
    for name in files:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path) as file:
                found = re.search(names + r"\\s*=\\s*['\\"]([^'\\"]+)", file.read())
            if found:
                return found.group(1)
    raise LookupError(package)
print(json.dumps({{
    "torch": version("torch", ["version.py"], "__version__"),
    "deepspeed": version("deepspeed", ["git_version_info_installed.py"], "version"),
}}))
"""


def versions(spec: EnvironmentSpec) -> str | None:
    """`torch 2.13.0+cpu, deepspeed 0.18.2`, as an identity has them (about 0.1 s).

    None where that cannot be told: the environment is not there, or keeps its versions elsewhere.
    """
    try:
        python = _python(spec)
        return None if python is None else _versions(python, spec.python is not None)
    except EnvironmentProblem:
        return None


def _python(spec: EnvironmentSpec) -> Path | None:
    return environments.status(spec).python if spec.python is None else locate(spec.python)


@functools.cache
def _versions(python: Path, given: bool) -> str:
    told = answer_of(python, _PROGRAM.format(given=given), TIMEOUT_S)
    return versions_of({"worker": told})


def forget() -> None:
    """Look again at the next question: an interpreter was changed."""
    _versions.cache_clear()
