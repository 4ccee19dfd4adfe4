"""What a server imports before it forks, and what it then sees of itself."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from importlib import metadata
from typing import Any, Dict, List, Optional

from bench import worker
from bench.worker import plugins


def import_stack(shm: bool) -> None:
    """The imports that every rank needs, and the switch for DeepSpeed's shared-memory op."""
    import deepspeed

    import_modules(["deepspeed.sequence.layer"])
    for package in ("attention", "loss", "checking", "scenarios"):
        import_modules([f"bench.worker.{package}.{name}" for name in plugins.names(package)])
    import_modules(_own_modules())
    if shm:
        from bench.worker import deepspeed_shm

        deepspeed_shm.build_and_load()
    else:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _own_modules() -> List[str]:
    """All modules of the worker: what a rank imported later might be another file by then."""
    found = pkgutil.walk_packages(worker.__path__, f"{worker.__name__}.", onerror=_later)
    names = [one.name for one in found]
    return [name for name in names if name != f"{worker.__name__}.server"]  # which is running


def _later(name: str) -> None:
    """A package cannot be imported: a rank that needs it says why."""


def import_modules(modules: List[str]) -> List[str]:
    """Import what can be imported; what fails here fails in the rank too, and is recorded there."""
    done = []
    for name in modules:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit):  # noqa: BLE001 (whatever an import may raise)
            traceback.print_exc()
        else:
            done.append(name)
    return done


def versions() -> Dict[str, Any]:
    """What this interpreter resolved to, observed and not asked for."""
    import deepspeed
    import torch

    nccl = None
    if torch.distributed.is_nccl_available() and torch.version.cuda:
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return {
        "python": sys.version.split()[0],
        "python_path": sys.executable,
        "torch": str(torch.__version__),
        "torch_git": torch.version.git_version,
        "cuda": torch.version.cuda,
        "nccl": nccl,
        "deepspeed": deepspeed.__version__,
        "transformers": _version("transformers"),
        "numpy": _version("numpy"),
    }


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
