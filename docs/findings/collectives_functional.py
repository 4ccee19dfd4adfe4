"""torch.distributed._functional_collectives without autograd: a wrong gradient, not an error.

broadcast has none in any version tried (2.2.2 to 2.15.0), and hands the upstream gradient of each
rank to its own input. all_to_all_single has none in 2.2.2 and 2.3.1: the gradient is 0.
Needs torch alone: python collectives_functional.py
"""

import tempfile

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional


def run(rank, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    x = torch.ones(2, requires_grad=True)
    weight = 1.0 + rank
    [gradient] = torch.autograd.grad(
        (functional.broadcast(x, 0, dist.group.WORLD) * weight).sum(), x
    )
    right = [3.0, 3.0] if rank == 0 else [0.0, 0.0]
    print(f"rank {rank}: broadcast: {gradient.tolist()}, right is {right}")
    output = functional.all_to_all_single(x, [1, 1], [1, 1], dist.group.WORLD)
    [gradient] = torch.autograd.grad((output * weight).sum(), x)
    print(f"rank {rank}: all_to_all_single: {gradient.tolist()}, right is [1.0, 2.0]")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store",)
        torch.multiprocessing.start_processes(run, arguments, nprocs=2, start_method="fork")
