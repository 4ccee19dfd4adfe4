"""reduce_scatter_tensor_autograd: right used directly, and a gradient of 0 by y.wait() in 2.6.0.

y.wait() returns the tensor inside the wrapper, and autograd of that version is the wrapper's.
torch 2.2.2 and 2.3.1 do not have the function.
Needs torch alone: python collectives_functional_wait.py
"""

import tempfile

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional

WAYS = {
    "used directly": lambda y: y,
    "wait_tensor(y)": functional.wait_tensor,
    "y.wait()": lambda y: y.wait(),
}


def run(rank, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    for way, awaited in WAYS.items():
        x = torch.ones(2, requires_grad=True)
        y = functional.reduce_scatter_tensor_autograd(x, "sum", 0, dist.group.WORLD)
        (awaited(y) * (1.0 + rank)).sum().backward()
        print(f"rank {rank}: {way}: gradient {x.grad.tolist()}, right is [1.0, 2.0]")


if __name__ == "__main__":
    print(f"torch {torch.__version__}", flush=True)
    if hasattr(functional, "reduce_scatter_tensor_autograd"):
        with tempfile.TemporaryDirectory() as folder:
            arguments = (f"{folder}/store",)
            torch.multiprocessing.start_processes(run, arguments, nprocs=2, start_method="fork")
    else:
        print("this version has no reduce_scatter_tensor_autograd")
