"""The backward of all_reduce, reduce and reduce_scatter is right for sums only, without an error.

all_reduce applies the forward's reduction to the upstream gradients (the maximum of them, say);
reduce and reduce_scatter hand the upstream gradient on as for a sum, so that an average comes
out n times too large. Seen with torch 2.2.2 to 2.15.0 (gloo has averages from 2.13 on, of the
versions tried). Needs torch alone: python collectives_reductions.py
"""

import tempfile

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional


def run(rank, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    x = torch.tensor([[1.0, 5.0], [3.0, 4.0]][rank], requires_grad=True)
    weight = torch.tensor([[1.0, 2.0], [10.0, 20.0]][rank])  # d loss / d output of this rank
    right = {"MAX": [[0.0, 22.0], [11.0, 0.0]], "PRODUCT": [[33.0, 88.0], [11.0, 110.0]]}
    for name, gradients in right.items():
        x.grad = None
        (functional.all_reduce(x, op=getattr(dist.ReduceOp, name)) * weight).sum().backward()
        print(f"rank {rank}: all_reduce {name}: {x.grad.tolist()}, right is {gradients[rank]}")
    x.grad = None
    try:
        functional.reduce(x, 0, op=dist.ReduceOp.AVG).mul(weight).sum().backward()
        print(f"rank {rank}: reduce AVG: {x.grad.tolist()}, right is [0.5, 1.0]")
    except RuntimeError as error:
        print(f"rank {rank}: reduce AVG: RuntimeError: {error}")


if __name__ == "__main__":
    print(f"torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store",)
        torch.multiprocessing.start_processes(run, arguments, nprocs=2, start_method="fork")
