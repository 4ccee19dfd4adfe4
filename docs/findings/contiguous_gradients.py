"""ZeRO 1 and 2 with contiguous_gradients=false, without sequence parallelism: plain DeepSpeed.

Two processes on the CPU, ordinary data parallelism, SGD with a learning rate of 1: the change of
the weights is the gradient that was used. Printed is its error relative to the right one: the
smallest and the largest over the parameters.

    python contiguous_gradients.py
"""

import os
import tempfile

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would compile for a minute


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))


def used_gradient(stage, contiguous, tokens):
    """What SGD took off each parameter."""
    module = model()
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "zero_allow_untested_optimizer": True,
            "gradient_clipping": 0.0,  # 1.0 is the default of DeepSpeed 0.19
            "zero_optimization": {"stage": stage, "contiguous_gradients": contiguous},
        },
    )
    engine.backward(engine(tokens[dist.get_rank()]).square().mean())
    engine.step()
    after = [safe_get_full_fp32_param(parameter) for parameter in module.parameters()]
    return [old.detach() - new for old, new in zip(model().parameters(), after)]


def run(rank, store):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    deepspeed.utils.logger.setLevel("ERROR")
    torch.manual_seed(1)
    tokens = torch.randn(2, 5, 8)
    module = model()
    module(tokens).square().mean().backward()
    right = [parameter.grad for parameter in module.parameters()]
    for stage in (1, 2):
        for contiguous in (True, False):
            found = used_gradient(stage, contiguous, tokens)
            errors = [((g - r).norm() / r.norm()).item() for g, r in zip(found, right)]
            said = f"{min(errors):.2f} to {max(errors):.2f}" if max(errors) > 1e-6 else "below 1e-6"
            print(f"rank {rank}: ZeRO {stage}, contiguous_gradients={contiguous}: error {said}")


if __name__ == "__main__":
    print(f"torch {torch.__version__}, DeepSpeed {deepspeed.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store",)
        torch.multiprocessing.start_processes(run, arguments, nprocs=2, start_method="fork")
