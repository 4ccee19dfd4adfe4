"""Build a model where and how it stays, and in float32 on the CPU first; prints what differs.

For every ZeRO stage and dtype: the masters, the first loss and the gradient of both, bit for bit.
"""

import gc
import json
import os
import sys
import tempfile
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_grad

from bench.trial import Configuration
from bench.worker import model, reference, training
from bench.worker.attention.local import causal_attention
from bench.worker.mesh import Mesh
from bench.worker.metrics.clock import CpuClock

CPU = torch.device("cpu")


def on_the_cpu_first(spec, core, weights, device=None, dtype=None, beat=None):
    """What `build` did when it knew neither device nor dtype."""
    return model.build(spec, core, weights).to(device)


def trained(build, configuration, stored):
    """By name: masters, gradients and the loss of one step."""
    training.build = build
    trainer = training.Trainer(configuration, Mesh.create(1), stored, CPU)
    found = {}
    names = list(trainer.engine.module.named_parameters())
    for name, parameter in names:
        master = safe_get_full_fp32_param(parameter)
        found[f"weight {name}"] = (parameter if master is None else master).detach().clone()

    def keep():
        for name, parameter in names:
            found[f"gradient {name}"] = safe_get_full_grad(parameter).clone()

    found["loss"] = trainer.step(lambda phase: None, CpuClock(), keep)
    return found


def bits(tensor):
    return tensor.dtype, tensor.flatten().view(torch.uint8).numpy().tobytes()


def main():
    configuration = Configuration.model_validate_json(sys.argv[1])
    torch.set_num_threads(1)
    gc.freeze()  # DeepSpeed collects garbage at every start
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    beats = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / configuration.reference_key
        reference.create(place, configuration, "off")
        stored = reference.Reference(place, configuration.model)
        weights = stored.weights()
        differ = {}
        for zero in range(4):
            for dtype in ("float32", "bfloat16"):
                one = configuration.model_copy(update={"zero": zero, "dtype": dtype})
                before = trained(on_the_cpu_first, one, stored)
                after = trained(model.build, one, stored)
                differ[f"zero {zero}, {dtype}"] = [
                    name for name in before if bits(before[name]) != bits(after[name])
                ]
        built = model.build(
            configuration.model,
            causal_attention,
            weights,
            torch.device("meta"),
            torch.bfloat16,
            lambda: beats.append(1),
        )
    print(
        json.dumps(
            {
                "differ": differ,
                "compared": len(before),
                "parameters": len(weights),
                "beats": len(beats),
                "built": sorted({f"{p.device} {p.dtype}" for p in built.parameters()}),
            }
        )
    )


if __name__ == "__main__":
    main()
