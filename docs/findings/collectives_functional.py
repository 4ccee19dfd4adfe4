"""torch.distributed._functional_collectives without autograd: a wrong gradient, not an error.

broadcast has none in any version tried, all_to_all_single none in 2.2.2 to 2.6.0. What comes out
depends on how the result y is awaited: no gradient at all, or for broadcast a wrong one, which
hands the upstream gradient of each rank to its own input (from 2.13 on also used directly).
Needs torch alone: python collectives_functional.py
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


def gradient(output, x, weight):
    """Of the sum of `output` times `weight`; in words where there is none."""
    loss = (output * weight).sum()
    if not loss.requires_grad:
        return "no gradient"
    [found] = torch.autograd.grad(loss, x, allow_unused=True)
    return "no gradient" if found is None else found.tolist()


def run(rank, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    x = torch.ones(2, requires_grad=True)
    world, weight = dist.group.WORLD, 1.0 + rank
    for way, awaited in WAYS.items():
        found = gradient(awaited(functional.broadcast(x, 0, world)), x, weight)
        print(f"rank {rank}: broadcast, {way}: {found}, right is {[[3.0] * 2, [0.0] * 2][rank]}")
        output = awaited(functional.all_to_all_single(x, [1, 1], [1, 1], world))
        found = gradient(output, x, weight)
        print(f"rank {rank}: all_to_all_single, {way}: {found}, right is [1.0, 2.0]")


if __name__ == "__main__":
    print(f"torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store",)
        torch.multiprocessing.start_processes(run, arguments, nprocs=2, start_method="fork")
