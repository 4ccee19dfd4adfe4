"""The factor of the gradient by loss aggregation and ZeRO stage: plain torch and DeepSpeed.

Two processes on the CPU share one sequence (sp = world = 2). The model works token by token, so
that it needs no attention and no communication of its own: only the loss and ZeRO reduce. The
optimizer is SGD with a learning rate of 1, so the change of the weights is the gradient that was
used; its factor is to the gradient of one process over the whole sequence. Columns: ZeRO 0 to 3.
DeepSpeed 0.18.6 on torch 2.2.2 raises an AssertionError in backward from ZeRO 1 on.

    python zero_gradient_scale.py                          # DeepSpeed's defaults
    python zero_gradient_scale.py reduce_scatter=false     # with options of ZeRO
"""

import json
import os
import sys
import tempfile

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional
from deepspeed.runtime.sequence_parallel import parallel_state_sp
from deepspeed.utils import safe_get_full_fp32_param

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would compile for a minute

SP, TOKENS = 2, 16
VALID = torch.arange(TOKENS) < 10  # 8 labels count on rank 0 and 2 on rank 1


def all_gather(mean, count, group):
    means, counts = (torch.stack(functional.all_gather(x, group=group)) for x in (mean, count))
    return (means * counts).sum() / counts.sum()


def weighted_all_reduce(mean, count, group):
    weighted, total = mean * count, count.clone()
    dist.all_reduce(weighted, group=group)
    dist.all_reduce(total, group=group)
    return weighted / total


def local(mean, count, group):
    total = count.clone()
    dist.all_reduce(total, group=group)
    return mean * count / total


def local_mean(mean, *_):
    return mean


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))


def losses(module, tokens, labels):
    return torch.nn.functional.cross_entropy(module(tokens), labels, reduction="none")


def flat(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).double()


def used_gradient(aggregate, stage, options, tokens, labels):
    """What SGD took off the weights."""
    module = model()
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
        mpu=parallel_state_sp,
        config={
            "train_micro_batch_size_per_gpu": 1,
            "zero_allow_untested_optimizer": True,
            "gradient_clipping": 0.0,  # 1.0 is the default of DeepSpeed 0.19
            "zero_optimization": {"stage": stage, **options},
        },
    )
    part = slice(dist.get_rank() * TOKENS // SP, (dist.get_rank() + 1) * TOKENS // SP)
    valid = VALID[part]
    mean = losses(engine, tokens[part], labels[part])[valid].mean()
    count = valid.sum().float()
    before = flat(model().parameters())
    engine.backward(aggregate(mean, count, parallel_state_sp.get_sequence_parallel_group()))
    engine.step()
    full = safe_get_full_fp32_param if stage else lambda parameter: parameter
    return before - flat(full(parameter) for parameter in module.parameters())


def run(rank, store, options):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(WORLD_SIZE=str(SP), LOCAL_WORLD_SIZE=str(SP))
    dist.init_process_group("gloo", store=dist.FileStore(store, SP), rank=rank, world_size=SP)
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    deepspeed.utils.logger.setLevel("ERROR")
    parallel_state_sp.initialize_sequence_parallel(SP)
    torch.manual_seed(1)
    tokens, labels = torch.randn(TOKENS, 8), torch.randint(4, (TOKENS,))
    module = model()
    losses(module, tokens, labels)[VALID].mean().backward()
    reference = flat(parameter.grad for parameter in module.parameters())
    for aggregate in (all_gather, weighted_all_reduce, local, local_mean):
        cells = []
        for stage in range(4):
            try:
                gradient = used_gradient(aggregate, stage, options, tokens, labels)
            except AssertionError:
                cells.append("AssertionError")
                continue
            scale = (gradient @ reference / (reference @ reference)).item()
            rest = ((gradient - scale * reference).norm() / (scale * reference).norm()).item()
            cells.append(f"x{scale:.4g}" if rest < 1e-4 else f"wrong ({rest:.2g} off)")
        print(f"rank {rank}: {aggregate.__name__:20}", *(f"{cell:16}" for cell in cells))


if __name__ == "__main__":
    try:
        options = {key: json.loads(value) for key, value in (a.split("=") for a in sys.argv[1:])}
    except ValueError:
        sys.exit("usage: python zero_gradient_scale.py [OPTION=VALUE …], as reduce_scatter=false")
    print(f"torch {torch.__version__}, DeepSpeed {deepspeed.__version__}, {options}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store", options)
        torch.multiprocessing.start_processes(run, arguments, nprocs=SP, start_method="fork")
