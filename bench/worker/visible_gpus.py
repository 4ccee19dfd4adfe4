"""The user's GPUs: hidden from a server, shown to what it forks.

DeepSpeed's import asks CUDA about every GPU that it sees, and a process that has asked can fork
none that uses CUDA. So the controller starts a server for GPUs with `CUDA_VISIBLE_DEVICES` empty
and the user's value aside, under another name; absent: the user had none.
"""

from __future__ import annotations

import os
import sys
from typing import Any

ASIDE = "SPBENCH_CUDA_VISIBLE_DEVICES"


def restore() -> None:
    """Show this process the GPUs that the user's value allows; a server for CPU hides none.

    It must come before anything that asks CUDA, and calls nothing that does.
    """
    if os.environ.get("DS_ACCELERATOR") != "cuda":
        return
    value = os.environ.pop(ASIDE, None)
    if value is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = value
    if "torch" in sys.modules:
        _forget(sys.modules["torch"])


def follows_from_hiding(warning: str) -> bool:
    """Whether a server's libraries warned only because the GPUs were hidden from it."""
    hidden = os.environ.get("DS_ACCELERATOR") == "cuda"
    return hidden and "No CUDA runtime is found" in warning


def _forget(torch: Any) -> None:
    """Drop what torch remembers of a time without GPUs."""
    remembering = [torch.cuda.device_count]  # an lru_cache up to torch 2.2
    if "torch.utils._triton" in sys.modules:  # asked while torch._inductor is imported
        remembering.append(sys.modules["torch.utils._triton"].has_triton)
    for function in remembering:
        if hasattr(function, "cache_clear"):
            function.cache_clear()
    if hasattr(torch.cuda, "_cached_device_count"):  # from torch 2.3 on
        torch.cuda._cached_device_count = None
