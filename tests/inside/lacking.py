"""Two real ranks survey a gradient of which rank 1's alone has a fault; prints what each judges.

Usage: lacking.py nan|zero|none
"""

import json
import math
import multiprocessing
import sys
import tempfile
from types import SimpleNamespace

import torch
import torch.distributed as dist

from bench.worker.checking import directional


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(3, 2)
        self.head = torch.nn.Linear(2, 3, bias=False)
        self.blocks = torch.nn.ModuleList()


def rank(index, store, fault, found):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=2)
    module = Model()
    configuration = SimpleNamespace(precision="float32")
    one = object.__new__(directional._Directional)
    one._module = module
    one._rank = SimpleNamespace(index=index, device="cpu", configuration=configuration)

    def gradient(parameter):
        right = torch.ones_like(parameter)
        if index == 0 or parameter is not module.head.weight:
            return right
        return {"nan": right * math.nan, "zero": right * 0.0, "none": None}[fault]

    one._gradient = gradient
    found.put((index, one.fields()["gradient"]))


def main():
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=rank, args=(index, f"{folder}/store", sys.argv[1], found))
            for index in range(2)
        ]
        for one in ranks:
            one.start()
        told = dict(found.get(timeout=60) for _ in ranks)
        for one in ranks:
            one.join(60)
    print(json.dumps([told[0], told[1]]))


if __name__ == "__main__":
    main()
