"""Runs inside an environment: what a rank says where torch can use no GPU, and which it takes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import torch

from bench.trial import CommSpec, Configuration, EnvironmentSpec, ModelSpec
from bench.worker.rank import Rank, join

configuration = Configuration(
    environment=EnvironmentSpec(name="this", python="python"),
    model=ModelSpec(name="none", layers=1, hidden=2, heads=1, kv_heads=1, ffn=1, vocab=2),
    comm=CommSpec(name="nccl"),
    world=8,
)
request = SimpleNamespace(configuration=configuration, store_port=1, threads=1)
rank = Rank(index=4, request=request, heartbeat=None)


def joining() -> str:
    """What the rank raises."""
    try:
        join(rank, make_store=lambda: None)
    except RuntimeError as error:
        return str(error)
    return "no error"


def set_device(gpu: int) -> None:
    """Stands in for CUDA, and ends the joining there."""
    raise RuntimeError(f"takes GPU {gpu}")


torch.cuda.set_device = set_device
found = [joining()]
torch.cuda.init = lambda: None  # a driver that starts, and shows no card
torch.cuda.device_count = lambda: 0
found.append(joining())
torch.cuda.device_count = lambda: 3
found.append(joining())
print(json.dumps({"torch": torch.__version__, "said": found}))
