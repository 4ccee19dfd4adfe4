"""DeepSpeed: the sequence all-to-all of [seq, batch, heads, dim] (batch_dim_idx=1) has no way back.

From heads to sequence, which is also the backward of sequence to heads, it reshapes as if the
batch came first. Seen with DeepSpeed 0.18.2, right in 0.19.8 (DeepSpeed PR 8317).
Needs torch and DeepSpeed: DS_ACCELERATOR=cpu python collectives_ulysses_sequence_first.py
"""

import os
import tempfile

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.sequence.layer import _SeqAllToAll


def run(rank, store):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # or it compiles for a minute
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    x = torch.randn(2, 1, 4, 3, requires_grad=True)  # 2 tokens, 1 sequence, 4 heads
    try:
        heads = _SeqAllToAll.apply(dist.group.WORLD, x, 2, 0, 1)
        print(f"rank {rank}: sequence to heads: {list(heads.shape)}, right is [4, 1, 2, 3]")
        heads.backward(torch.ones_like(heads))
        print(f"rank {rank}: gradient is right: {bool((x.grad == 1).all())}")
    except RuntimeError as error:
        print(f"rank {rank}: backward: RuntimeError: {error}")


if __name__ == "__main__":
    print(f"torch {torch.__version__}, DeepSpeed {deepspeed.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store",)
        torch.multiprocessing.start_processes(run, arguments, nprocs=2, start_method="fork")
