"""NCCL: the backward of all_gather in torch before 2.3. Needs 2 GPUs; not run by its authors.

In a subgroup it takes the world's rank for the group's: IndexError on ranks from the group's
size on (PyTorch issue 120213, PR 120481). With a gradient that is not contiguous it drops the
result and returns memory that was never written (PR 120582). spbench executes the same lines on
gloo: `spbench sweep +experiment=collectives environment=torch-2.2 comm=nccl_over_gloo`.
Run it as: torchrun --nproc-per-node 2 collectives_nccl_all_gather.py
"""

import os
import sys

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional

if __name__ == "__main__":
    if torch.cuda.device_count() < 2 or os.environ.get("WORLD_SIZE") != "2":
        sys.exit(
            "needs 2 GPUs and 2 processes: "
            "torchrun --nproc-per-node 2 collectives_nccl_all_gather.py"
        )
    rank = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl")
    alone = [dist.new_group([0]), dist.new_group([1])][rank]
    x = torch.ones(2, device="cuda", requires_grad=True)
    try:
        torch.stack(functional.all_gather(x, group=alone)).sum().backward()
        print(f"rank {rank}: gradient {x.grad.tolist()}, right is [1.0, 1.0]")
    except IndexError as error:
        print(f"rank {rank}: IndexError: {error}")
    x = torch.zeros(2, 3, device="cuda", requires_grad=True)
    upstream = torch.arange(6.0, device="cuda").reshape(3, 2).t()
    [gradient] = torch.autograd.grad(functional.all_gather(x), x, [upstream, upstream])
    print(f"rank {rank}: gradient {gradient.tolist()}, right is {(2 * upstream).tolist()}")
