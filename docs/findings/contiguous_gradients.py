"""ZeRO 1 and 2 with contiguous_gradients=false, without sequence parallelism: plain DeepSpeed.

Two processes on the CPU, ordinary data parallelism, SGD with a learning rate of 1: the change of
the weights is the gradient that was used. Beside it, per parameter, the right one.

    python contiguous_gradients.py
"""

import os

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
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


def run(rank, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE="2")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2")
    deepspeed.init_distributed("gloo", verbose=False)
    deepspeed.utils.logger.setLevel("ERROR")
    torch.manual_seed(1)
    tokens = torch.randn(2, 5, 8)
    module = model()
    module(tokens).square().mean().backward()
    if rank == 0:
        print(f"torch {torch.__version__}, DeepSpeed {deepspeed.__version__}")
    for stage in (1, 2):
        for contiguous in (True, False):
            found = used_gradient(stage, contiguous, tokens)
            if rank:
                continue
            print(f"ZeRO {stage}, contiguous_gradients={contiguous}")
            for (name, parameter), gradient in zip(module.named_parameters(), found):
                error = ((gradient - parameter.grad).norm() / parameter.grad.norm()).item()
                print(f"  {name:10} relative error {error:.1e}  norm {gradient.norm():.4f}")


if __name__ == "__main__":
    multiprocessing.spawn(run, (str(20000 + os.getpid() % 20000),), nprocs=2)
