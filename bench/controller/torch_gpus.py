"""What torch of an interpreter can use of the GPUs that the driver shows.

NVML counts cards, whatever torch is installed. A build without CUDA can use none of them, nor can
one for a newer major release of CUDA than the driver's (within a major release from 11 on, and
with the driver's forward-compatibility package, a newer build runs:
https://docs.nvidia.com/deploy/cuda-compatibility); a build may lack the code for a new card; and
where cards are cut into instances (MIG), CUDA gives a process one of them. So torch is asked. Only
a build without CUDA is known without that: its `version.py` says so.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from bench.controller.gpus import cuda_of_driver, driver_version, mig, visible_gpus
from bench.controller.interpreter import EnvironmentProblem, Interpreter, answer_of
from bench.trial import Configuration

BUILD_TIMEOUT_S = 60.0
USE_TIMEOUT_S = 300.0
"""Importing torch takes seconds on a warm disk and minutes on a cold network one."""

# Finding a package does not import it; its version.py imports nothing of torch.
_BUILD = """
import importlib.util, json, pathlib, runpy
package = pathlib.Path(importlib.util.find_spec("torch").origin)
said = runpy.run_path(str(package.with_name("version.py")))
print(json.dumps({"torch": said["__version__"], "cuda": said.get("cuda")}))
"""

# Before CUDA is initialised `device_count` asks NVML; on torch 2.2 always. So each device is
# asked for its name. None gets a context, except to try a kernel where the build has no code made
# for its architecture (which may still run: other minor releases, or PTX compiled on the way).
_USE = """
import json
import torch
names, problem = [], None
try:
    torch.cuda.init()
    built_for = torch.cuda.get_arch_list()
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        if "sm_%d%d" % torch.cuda.get_device_capability(index) not in built_for:
            try:
                torch.ones(1, device=torch.device("cuda", index)).add_(1).item()
            except RuntimeError as error:
                if "no kernel image" in str(error):
                    raise
        names.append(name)
    if not torch.distributed.is_available() or not torch.distributed.is_nccl_available():
        names, problem = [], "it is built without NCCL"
except Exception as error:
    problem = str(error) or type(error).__name__
print("\\n" + json.dumps({"names": names, "problem": problem}))
"""


@dataclass(frozen=True)
class TorchGpus:
    """What torch of one interpreter can use of the visible GPUs."""

    torch: str
    """Version with its local part, such as `2.13.0+cu126`."""
    cuda: Optional[str]
    """CUDA that it was built with; None: built without."""
    names: tuple[str, ...] = ()
    """GPUs that it can use, in its own order."""
    problem: Optional[str] = None
    """What kept it from using more, in torch's words; None: nothing was said."""


def seen_by(python: Path) -> TorchGpus:
    """What torch in `python` can use, under the current `CUDA_VISIBLE_DEVICES`.

    The first call imports torch in a process of its own (seconds), later ones remember. Raises
    `EnvironmentProblem` when `python` has no torch that can be imported.
    """
    return _seen_by(python, os.environ.get("CUDA_VISIBLE_DEVICES"))


def needed(configuration: Configuration) -> int:
    """GPUs that the ranks of `configuration` need; 0 on CPU."""
    comm = configuration.comm
    if comm.device != "cuda":
        return 0
    return 1 if comm.oversubscribe else configuration.world


def require(interpreter: Interpreter, gpus: int) -> None:
    """Raise `EnvironmentProblem`, with what to do, unless torch there can use `gpus` GPUs."""
    if gpus and (lack := shortage(interpreter.python, gpus)) is not None:
        raise EnvironmentProblem(
            f"environment '{interpreter.spec.name}': {lack}; {_remedy(interpreter)}", "gpu"
        )


def _remedy(interpreter: Interpreter) -> str:
    usable = len(seen_by(interpreter.python).names)
    if usable:
        return f"take world<={usable}, oversubscribe=true or comm=nccl_over_gloo"
    if interpreter.spec.python is not None:
        return "install a build for this machine there, or take comm=nccl_over_gloo"
    return "take environment.torch_backend=auto or comm=nccl_over_gloo"


def shortage(python: Path, gpus: int) -> Optional[str]:
    """Why torch in `python` cannot use `gpus` GPUs, in a clause; None when it can."""
    if gpus == 0:
        return None
    seen, shown = seen_by(python), len(visible_gpus())
    if len(seen.names) >= gpus:
        return None
    if seen.cuda is None:
        return f"torch {seen.torch} is built without CUDA and can use none of the {shown} GPUs"
    why = [_first_line(seen.problem)] if seen.problem else []
    why += _contradiction(seen.cuda)
    if mig():
        why.append("cards are cut into instances (MIG), of which CUDA gives one to a process")
    use = f"can use {len(seen.names) or 'none'} of the {shown} GPUs, not {gpus}"
    return f"torch {seen.torch} (CUDA {seen.cuda}) {use}" + (f" ({'; '.join(why)})" if why else "")


def _contradiction(built_with: str) -> list[str]:
    """Where the build is for a newer major release of CUDA than the driver: that they are."""
    known = cuda_of_driver()
    if known is None or int(built_with.partition(".")[0]) <= known[0]:
        return []
    return [f"driver {driver_version()} knows CUDA up to {known[0]}.{known[1]}"]


def _first_line(text: str) -> str:
    """The first sentence of what torch said."""
    return text.strip().splitlines()[0].partition(". ")[0].rstrip(".")[:200]


@functools.lru_cache(maxsize=32)
def _seen_by(python: Path, _visible: Optional[str]) -> TorchGpus:
    build = answer_of(python, _BUILD, BUILD_TIMEOUT_S)
    if build["cuda"] is None:
        return TorchGpus(build["torch"], None)
    use = answer_of(python, _USE, USE_TIMEOUT_S)
    return TorchGpus(build["torch"], build["cuda"], tuple(use["names"]), use["problem"])
