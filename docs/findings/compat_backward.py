"""Does one backward run under a ZeRO stage? Plain DeepSpeed, one process, no spbench.

    uv run --no-project --python 3.11 --with torch==2.2.2 --with deepspeed==0.18.6 \
        --with 'numpy<2' --with setuptools python docs/findings/compat_backward.py 1

The argument is the ZeRO stage. Prints the versions and `ok`, or the AssertionError or
AttributeError that backward raised.
"""

import os
import sys

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_SIZE="1")

import deepspeed
import torch


def step(stage):
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # or it compiles for a minute
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
    deepspeed.utils.logger.setLevel("ERROR")
    model = torch.nn.Linear(8, 8)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.Adam(model.parameters()),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,
        },
    )
    engine.backward(engine(torch.ones(1, 8)).sum())
    engine.step()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("0", "1", "2", "3"):
        sys.exit("usage: python compat_backward.py STAGE, the ZeRO stage from 0 to 3")
    print(f"torch {torch.__version__}, DeepSpeed {deepspeed.__version__}", flush=True)
    try:
        step(int(sys.argv[1]))
        print(f"ZeRO {sys.argv[1]}: ok")
    except (AssertionError, AttributeError) as error:
        print(f"ZeRO {sys.argv[1]}: {type(error).__name__}: {error}")
