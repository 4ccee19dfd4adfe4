"""Which kernel computes scaled-dot-product attention: what torch may choose from, what it chose."""

from __future__ import annotations

from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.trial import Sdpa

_SWITCHES = {
    "flash": "enable_flash_sdp",
    "efficient": "enable_mem_efficient_sdp",
    "cudnn": "enable_cudnn_sdp",
    "math": "enable_math_sdp",
}
_NAMES = {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}
"""Values of `torch.nn.attention.SDPBackend`, the same in every version; -1 is none at all."""


class _Note:
    """What the next call of `causal` found; one for the process."""

    wanted = False
    kernel: Optional[str] = None


def restrict(choice: Sdpa) -> None:
    """Leave torch only this kernel, forward and backward, for the life of the process.

    Where that one cannot run, or is unknown to this version, attention raises torch's own error.
    """
    if choice == "auto":
        return
    for name, switch in _SWITCHES.items():
        if hasattr(torch.backends.cuda, switch):  # they rule on CPU too
            getattr(torch.backends.cuda, switch)(name == choice)


def note_next() -> None:
    """Have the next call of `causal` note the kernel that torch chooses for its tensors."""
    _Note.wanted = True


def noted() -> Optional[str]:
    """The kernel that was noted: flash, efficient, cudnn, math or unknown; None: no call was."""
    return _Note.kernel


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`, causal; [batch, heads, seq, head_dim]."""
    if _Note.wanted:
        _Note.wanted = False
        _Note.kernel = _chosen(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _chosen(q: Tensor, k: Tensor, v: Tensor) -> Optional[str]:
    """What torch chooses for these tensors, with their strides and their need of a gradient."""
    choose: Any = getattr(torch, "_fused_sdp_choice", None)  # private: it may go
    if choose is None:
        return None
    try:
        return _NAMES.get(int(choose(q, k, v, is_causal=True)), "unknown")
    except (RuntimeError, TypeError):  # attention itself says what is wrong with them
        return "unknown"
