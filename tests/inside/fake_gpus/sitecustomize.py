"""Pretend 8 GPUs to a Python that finds this on its path: at NVML, and below torch.cuda.

A simulation at the driver's border, for machines without a GPU: torch's and DeepSpeed's own code
above it runs unchanged, on builds with CUDA and without. As the real functions do, each call that
reaches CUDA makes it unusable in processes that are forked later, and obeys CUDA_VISIBLE_DEVICES
as it is then. Each such call appends a line of JSON to $FAKE_GPUS_LOG: the
process, the function, and CUDA_VISIBLE_DEVICES at that moment. $FAKE_NO_NVCC hides CUDA's compiler.
"""

import ctypes
import json
import os
import sys
import types
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from pathlib import Path

GPUS = 8
_state = {"reached": False, "bad_fork": False}


def _reached(call):
    _state["reached"] = True
    line = {"pid": os.getpid(), "call": call, "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}
    with Path(os.environ["FAKE_GPUS_LOG"]).open("a") as log:
        log.write(json.dumps(line) + "\n")


def _after_fork():
    _state["bad_fork"] = _state["bad_fork"] or _state["reached"]


def _visible():
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return GPUS
    return len([part for part in value.split(",") if part.strip().isdigit()])


def _count():
    _reached("_cuda_getDeviceCount")
    return _visible()


def _init():
    _reached("_cuda_init")
    if not _visible():
        raise RuntimeError("No CUDA GPUs are available")
    torch = sys.modules["torch"]
    torch.cuda._get_device_properties = _properties
    torch.cuda.default_generators = tuple(torch.Generator() for _ in range(_visible()))


def _set_device(index):
    _reached("_cuda_setDevice")
    assert 0 <= index < _visible(), index


def _get_device():
    _reached("_cuda_getDevice")
    return 0


def _properties(index):
    _reached("_get_device_properties")
    return types.SimpleNamespace(name="Fake H100", major=9, minor=0, total_memory=80 << 30)


def _pretend_cuda(torch_c):
    torch_c._cuda_getDeviceCount = _count
    torch_c._cuda_init = _init
    torch_c._cuda_setDevice = _set_device
    torch_c._cuda_getDevice = _get_device
    torch_c._cuda_isInBadFork = lambda: _state["bad_fork"]
    torch_c._cuda_getCompiledVersion = lambda: 12010
    torch_c._cuda_getArchFlags = lambda: "sm_90"
    if not hasattr(torch_c, "_nccl_version"):
        torch_c._nccl_version = lambda: 2 << 32 | 30 << 16 | 3
        torch_c._nccl_version_suffix = lambda: b""
    for name in ("_cudart", "_cuda_getCurrentRawStream"):  # imported by name; nothing calls them
        if not hasattr(torch_c, name):
            setattr(torch_c, name, object())


class _Nvml:
    """What torch's own use of libnvidia-ml needs; it does not reach CUDA."""

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = GPUS
        return 0

    def __getattr__(self, name):
        return lambda *arguments: 0


def _after_loading(loader, act):
    load = loader.exec_module

    def exec_module(self, module):
        load(self, module)
        act(module)

    loader.exec_module = exec_module


def _on_extension(module):
    if module.__name__ == "torch._C":
        _pretend_cuda(module)


def _on_source(module):
    if module.__name__ == "torch.version" and module.cuda is None:
        module.cuda = "12.1"
    if module.__name__ == "torch.utils.cpp_extension" and "FAKE_NO_NVCC" in os.environ:
        module.CUDA_HOME = None


_load_library = ctypes.CDLL
ctypes.CDLL = lambda name=None, *arguments, **options: (
    _Nvml()
    if isinstance(name, str) and name.startswith("libnvidia-ml")
    else _load_library(name, *arguments, **options)
)
_after_loading(ExtensionFileLoader, _on_extension)
_after_loading(SourceFileLoader, _on_source)
os.register_at_fork(after_in_child=_after_fork)
