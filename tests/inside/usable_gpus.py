"""Runs inside an environment: what a rank says where torch can use no GPU."""

from __future__ import annotations

import json

import torch

from bench.worker.rank import usable_gpus


def said() -> str:
    try:
        return f"no error: {usable_gpus()}"
    except RuntimeError as error:
        return str(error)


found = [said()]
torch.cuda.init = lambda: None  # a driver that starts, and shows no card
torch.cuda.device_count = lambda: 0
found.append(said())
torch.cuda.device_count = lambda: 3
found.append(said())
print(json.dumps({"torch": torch.__version__, "said": found}))
