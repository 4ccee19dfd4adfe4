"""torch.distributed._functional_collectives without autograd: a wrong gradient, not an error.

broadcast has none in any version tried (2.2.2 to 2.15.0), and hands the upstream gradient of each
rank to its own input. all_to_all_single has none in 2.2.2 and 2.3.1: the gradient is 0.
Needs torch alone: python collectives_functional.py
"""

import tempfile

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional


def gradient(output, x, weight):
    """Of the sum of `output` times `weight`; None where autograd knows of no way from x."""
    output = output.wait() if hasattr(output, "wait") else output
    [found] = torch.autograd.grad((output * weight).sum(), x, allow_unused=True)
    return None if found is None else found.tolist()


def run(rank, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    x = torch.ones(2, requires_grad=True)
    weight = 1.0 + rank
    found = gradient(functional.broadcast(x, 0, dist.group.WORLD), x, weight)
    print(f"rank {rank}: broadcast: {found}, right is {[[3.0, 3.0], [0.0, 0.0]][rank]}")
    output = functional.all_to_all_single(x, [1, 1], [1, 1], dist.group.WORLD)
    print(f"rank {rank}: all_to_all_single: {gradient(output, x, weight)}, right is [1.0, 2.0]")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store",)
        torch.multiprocessing.start_processes(run, arguments, nprocs=2, start_method="fork")
