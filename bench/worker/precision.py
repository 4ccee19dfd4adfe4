"""Precision of float32 matrix products on GPU."""

from __future__ import annotations

import torch

from bench.trial import Matmul


def set_matmul(choice: Matmul) -> None:
    """Let cuBLAS and cuDNN use TF32 in this process, or forbid it.

    Only by the settings that every version has: from 2.9 on torch raises where these are read
    after `fp32_precision` was set, and some libraries read them.
    """
    tf32 = choice == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
