"""Steps of `directional` in a block of many bfloat16 weights; prints how far they move it.

Usage: lengthened.py. The weights are 0.02, whose neighbours in bfloat16 are 2^-13 away; the first
half of the gradient is three times the other.
"""

import json
import tempfile
from types import SimpleNamespace

import torch
import torch.distributed as dist

from bench.worker.checking import directional

SIZE = 1 << 16


def one_rank(dtype):
    one = object.__new__(directional._Directional)
    one._rank = SimpleNamespace(device="cpu")
    one._weights = {"w": torch.full((SIZE,), 0.02)}
    gradient = torch.full((SIZE,), 1e-3)
    gradient[: SIZE // 2] *= 3
    one._gradient = lambda parameter: gradient
    weights = one._weights["w"].to(dtype)
    return one, directional._Block("b", [("w", torch.nn.Parameter(weights))]), gradient


def found(dtype, moves):
    one, block, gradient = one_rank(dtype)
    gg = float(gradient.double() @ gradient.double())
    step = moves / 3e-3  # the first half is to move by this much, the other by a third of it
    longer = one._lengthened(block, step, gg)
    weights = block.parameters[0][1].detach()
    restored = bool((weights == one._weights["w"].to(dtype)).all())
    return {
        "times": longer / step,
        "reached": one._move(block, longer) / (step * gg),
        "restored": restored,
    }


with tempfile.TemporaryDirectory() as folder:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    print(
        json.dumps(
            {
                "float32": found(torch.float32, 1e-5),
                "bfloat16, far": found(torch.bfloat16, 2e-3),
                "bfloat16, near": found(torch.bfloat16, 1e-5),
            }
        )
    )
    dist.destroy_process_group()
