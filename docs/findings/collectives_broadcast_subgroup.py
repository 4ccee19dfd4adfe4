"""broadcast in a group whose source has another rank in it than in the world: gradient 0.

The source is a global rank; torch 2.3 to 2.13 compare it with the rank in the group. torch 2.2
and 2.15 are right (PyTorch issue 130515, PR 190583). No error, no warning.
Needs torch alone: python collectives_broadcast_subgroup.py
"""

import tempfile

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional


def run(rank, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, 4), rank=rank, world_size=4)
    groups = [dist.new_group(ranks) for ranks in ([0, 1], [2, 3])]
    source = rank - rank % 2  # 0 or 2
    x = torch.ones(2, requires_grad=True)
    functional.broadcast(x, source, group=groups[rank // 2]).sum().backward()
    right = [2.0, 2.0] if rank == source else [0.0, 0.0]
    print(f"rank {rank}: gradient {x.grad.tolist()}, right is {right}")
    dist.barrier()  # nobody leaves while another may still be connecting


if __name__ == "__main__":
    print(f"torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store",)
        torch.multiprocessing.start_processes(run, arguments, nprocs=4, start_method="fork")
