"""An interpreter whose torch is a pretence: spbench's own questions run against it for real."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

from bench.controller.interpreter import Interpreter
from bench.trial import EnvironmentSpec

_VERSION = """
__version__ = {version!r}
cuda = {cuda!r}
"""
_INIT = """
from . import cuda, distributed, version
import pathlib
pathlib.Path(__file__).with_name("imported").touch()
def device(kind, index):
    return index
class ones:
    def __init__(self, size, device):
        self.device = device
    def add_(self, one):
        if {kernel!r}:
            raise RuntimeError({kernel!r})
        return self
    def item(self):
        return 2.0
"""
_CUDA = """
def init():
    if {init!r}:
        raise RuntimeError({init!r})
def device_count():
    return {counted}
def get_device_name(index):
    if index >= {usable}:
        raise RuntimeError("CUDA error: invalid device ordinal")
    return "gpu%d" % index
def get_device_capability(index):
    return {capability}
def get_arch_list():
    return {built_for}
"""
_DISTRIBUTED = """
def is_available():
    return True
def is_nccl_available():
    return {nccl}
"""


def interpreter(
    folder: Path,
    version: str = "2.13.0+cu126",
    cuda: str | None = "12.6",
    init: str = "",
    counted: int = 2,
    usable: int = 2,
    capability: tuple[int, int] = (9, 0),
    built_for: tuple[str, ...] = ("sm_80", "sm_90"),
    kernel: str = "",
    nccl: bool = True,
) -> Interpreter:
    """An interpreter in `folder` with such a torch.

    `init` and `kernel` are what CUDA's initialisation and a kernel raise; empty: they work. Of
    the `counted` devices `usable` can be reached.
    """
    package = folder / "packages" / "torch"
    package.mkdir(parents=True)
    (package / "version.py").write_text(_VERSION.format(version=version, cuda=cuda))
    (package / "__init__.py").write_text(_INIT.format(kernel=kernel))
    (package / "cuda.py").write_text(
        _CUDA.format(
            init=init, counted=counted, usable=usable, capability=capability, built_for=built_for
        )
    )
    (package / "distributed.py").write_text(_DISTRIBUTED.format(nccl=nccl))
    for name, found in (("torch", version), ("deepspeed", "0.18.2")):
        metadata = package.parent / f"{name}-{found}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {found}\n")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{package.parent}" exec "{sys.executable}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    spec = EnvironmentSpec(name="pretended", torch="2.13.0", deepspeed="0.18.2")
    return Interpreter(spec, python, folder, folder / "preload.json")


def was_imported(made: Interpreter) -> bool:
    """Whether anything imported the pretended torch."""
    return (made.python.parent / "packages" / "torch" / "imported").exists()
