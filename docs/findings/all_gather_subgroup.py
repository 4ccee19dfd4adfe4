"""The backward of torch.distributed.nn.functional.all_gather in subgroups: plain torch, on the CPU.

Four processes in two groups, {0, 1} and {2, 3}. On gloo the backward takes gloo's path. With
`nccl` the module is told that the backend is NCCL, and the one collective of that path which
gloo lacks is done by an all-reduce, so that the very lines run that run on GPUs. Every rank
back-propagates the sum of what was gathered, so the right gradient is 2 on every rank.

    python all_gather_subgroup.py
    python all_gather_subgroup.py nccl
"""

import sys
import tempfile

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional

all_reduce = dist.all_reduce


class NcclPath:
    """torch.distributed, but the backend is NCCL."""

    def __getattr__(self, name):
        return getattr(dist, name)

    def get_backend(self, group=None):  # noqa: ARG002
        return dist.Backend.NCCL

    def reduce_scatter(self, output, input_list, op=dist.ReduceOp.SUM, group=None):
        parts = torch.stack(list(input_list))
        all_reduce(parts, op=op, group=group)
        output.copy_(parts[dist.get_rank(group)])


def run(rank, store, nccl):
    dist.init_process_group("gloo", store=dist.FileStore(store, 4), rank=rank, world_size=4)
    groups = [dist.new_group(ranks) for ranks in ([0, 1], [2, 3])]
    if nccl:
        functional.dist = NcclPath()
    x = torch.tensor(1.0, requires_grad=True)
    gathered = functional.all_gather(x, group=groups[rank // 2])
    finding = IndexError if nccl else ValueError
    try:
        torch.stack(gathered).sum().backward()
        print(f"rank {rank}: gradient {x.grad.item():g}, right is 2")
    except finding as error:
        print(f"rank {rank}: {type(error).__name__}: {error}")
    dist.barrier()


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["nccl"]):
        sys.exit("usage: python all_gather_subgroup.py [nccl]")
    nccl = "nccl" in sys.argv[1:]
    print(
        f"torch {torch.__version__}, {'the path of NCCL on gloo' if nccl else 'gloo'}", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store", nccl)
        torch.multiprocessing.start_processes(run, arguments, nprocs=4, start_method="fork")
