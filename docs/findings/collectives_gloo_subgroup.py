"""Gloo: the backward of all_gather and the forward of all_to_all fail in a group without rank 0.

`_AlltoAll` scatters from source i = 0 … n-1 of the group, and `dist.scatter` takes global ranks.
Seen with torch 2.2.2 to 2.15.0. Needs torch alone: python collectives_gloo_subgroup.py
"""

import tempfile

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional


def run(rank, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, 4), rank=rank, world_size=4)
    groups = [dist.new_group(ranks) for ranks in ([0, 1], [2, 3])]
    group = groups[rank // 2]
    x = torch.ones(2, requires_grad=True)
    try:
        torch.stack(functional.all_gather(x, group=group)).sum().backward()
        print(f"rank {rank}: all_gather: gradient {x.grad.tolist()}, right is [2.0, 2.0]")
    except ValueError as error:
        print(f"rank {rank}: all_gather: ValueError: {error}")
    dist.barrier()


if __name__ == "__main__":
    print(f"torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store",)
        torch.multiprocessing.start_processes(run, arguments, nprocs=4, start_method="fork")
