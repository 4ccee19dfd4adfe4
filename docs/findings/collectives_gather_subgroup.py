"""gather and scatter in a group without rank 0: one rank raises and the other waits for ever.

The root is a global rank; the code compares it with the rank in the group, so nobody takes
itself for the root. Seen with torch 2.2.2 to 2.15.0. The wait is cut at 3 s here.
Needs torch alone: python collectives_gather_subgroup.py
"""

import datetime
import tempfile

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional


def run(rank, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, 4), rank=rank, world_size=4)
    limit = datetime.timedelta(seconds=3)
    groups = [dist.new_group(ranks, timeout=limit) for ranks in ([0, 1], [2, 3])]
    root = rank - rank % 2  # 0 or 2
    x = torch.ones(2, requires_grad=True)
    try:
        functional.gather(x, dst=root, group=groups[rank // 2])
        print(f"rank {rank}: ok")
    except ValueError as error:
        print(f"rank {rank}: ValueError: {error}")
    except RuntimeError as error:
        if "imed out" not in str(error):
            raise
        print(f"rank {rank}: waited in vain: RuntimeError: {error}")
    dist.barrier()


if __name__ == "__main__":
    print(f"torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store",)
        torch.multiprocessing.start_processes(run, arguments, nprocs=4, start_method="fork")
