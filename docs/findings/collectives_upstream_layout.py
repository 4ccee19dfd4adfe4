"""Gloo: a gradient that is not contiguous comes out of collectives wrong, without an error.

all_gather: the outputs of a transposed gradient get a transposed layout, into which gloo writes
as if it were contiguous. gather: a slice is sent as the memory that it starts in, its neighbours
included. Seen with torch 2.2.2 to 2.15.0. Needs torch alone: python collectives_upstream_layout.py
"""

import tempfile

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional


def run(rank, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    x = torch.zeros(2, 3, requires_grad=True)
    upstream = torch.arange(6.0).reshape(2, 3)

    outputs = functional.all_gather(x)
    transposed = upstream.t().contiguous().t()  # the same values, columns first in memory
    [gradient] = torch.autograd.grad(outputs, x, [transposed, transposed])
    print(f"rank {rank}: all_gather: {gradient.tolist()}, right is {(2 * upstream).tolist()}")

    outputs = functional.gather(x, dst=0)
    wide = torch.full((2, 6), 99.0)
    wide[:, ::2] = upstream
    [gradient] = torch.autograd.grad(outputs, x, [wide[:, ::2], wide[:, ::2]])
    print(f"rank {rank}: gather: {gradient.tolist()}, right is {upstream.tolist()}")


if __name__ == "__main__":
    print(f"torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store",)
        torch.multiprocessing.start_processes(run, arguments, nprocs=2, start_method="fork")
