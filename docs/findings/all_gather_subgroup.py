"""The backward of torch.distributed.nn.functional.all_gather in subgroups: plain torch, on the CPU.

Four processes in two groups, {0, 1} and {2, 3}. On gloo the backward takes gloo's path. With
`nccl` the module is told that the backend is NCCL, and the one collective of that path which
gloo lacks is done by an all-reduce, so that the very lines run that run on GPUs. Every rank
back-propagates the sum of what was gathered, so the right gradient is 2 on every rank.

    python all_gather_subgroup.py
    python all_gather_subgroup.py nccl
"""

import os
import sys

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional
import torch.multiprocessing as multiprocessing

all_reduce = dist.all_reduce


class NcclPath:
    """torch.distributed, but the backend is NCCL."""

    def __getattr__(self, name):
        return getattr(dist, name)

    def get_backend(self, group=None):
        return dist.Backend.NCCL

    def reduce_scatter(self, output, input_list, op=dist.ReduceOp.SUM, group=None):
        parts = torch.stack(list(input_list))
        all_reduce(parts, op=op, group=group)
        output.copy_(parts[dist.get_rank(group)])


def run(rank, port, nccl):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    dist.init_process_group("gloo", rank=rank, world_size=4)
    groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    if nccl:
        functional.dist = NcclPath()
    x = torch.tensor(1.0, requires_grad=True)
    gathered = functional.all_gather(x, group=groups[rank // 2])
    try:
        torch.stack(gathered).sum().backward()
        said = f"gradient {x.grad.item():g}"
    except Exception as error:  # noqa: BLE001 (every one is a finding)
        said = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    path = "NCCL's path on gloo" if nccl else "gloo"
    print(f"torch {torch.__version__}, {path}, rank {rank}: {said}", flush=True)
    os._exit(0)  # a rank that raised cannot take part in a barrier


if __name__ == "__main__":
    port = str(20000 + os.getpid() % 20000)
    multiprocessing.spawn(run, (port, "nccl" in sys.argv[1:]), nprocs=4)
