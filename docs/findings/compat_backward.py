"""Does one backward run under a ZeRO stage? Plain DeepSpeed, one process, no spbench.

    uv run --no-project --python 3.11 --with torch==2.2.2 --with deepspeed==0.18.6 \
        --with 'numpy<2' --with setuptools python docs/findings/compat_backward.py 1

The argument is the ZeRO stage. Prints the versions and `ok`, or the traceback.
"""

import os
import sys

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_SIZE="1")
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511")

import deepspeed
import torch

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiles for a minute otherwise
deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
stage = int(sys.argv[1])
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
print("torch", torch.__version__, "deepspeed", deepspeed.__version__, "ZeRO", stage, flush=True)
engine.backward(engine(torch.ones(1, 8)).sum())
engine.step()
print("ok")
