"""Real ranks take one step of SGD; what it did to the weights tells what the optimizer consumed.

Usage: clipped.py JOBS, with JOBS a JSON object: by name, a configuration.

Prints for each job what `ClippingWatch` found, the norm of the whole gradient as
`safe_get_full_grad` gave it before the step, and the factor of it by which the weights moved:
-<dw, g> / (lr <g, g>), from the float32 masters, or from the parameters where there are none.
"""

import json
import math
import mmap
import multiprocessing
import sys
import tempfile
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_grad

from bench.trial import Configuration
from bench.worker import reference
from bench.worker.mesh import Mesh
from bench.worker.metrics import clock
from bench.worker.metrics.clipping import ClippingWatch
from bench.worker.rank import HEARTBEAT, Rank, Request, join
from bench.worker.training import Trainer


def weights_of(module):
    found = {}
    for name, parameter in module.named_parameters():
        master = safe_get_full_fp32_param(parameter)
        found[name] = (parameter if master is None else master).detach().double().clone()
    return found


def run(index, folder, configuration, store):
    beats = mmap.mmap(-1, HEARTBEAT.size * configuration.world)
    weights = folder / configuration.reference_key
    rank = Rank(index, Request(configuration, folder, folder, weights, 0, 1, "off"), beats)
    join(rank, lambda: dist.FileStore(store, configuration.world))
    mesh = Mesh.create(configuration.sp)
    initial = reference.Reference(rank.reference, configuration.model)
    trainer = Trainer(configuration, mesh, initial, rank.device)
    watch, gradient, module = ClippingWatch(trainer.engine, rank.device), {}, trainer.engine.module
    before = weights_of(module)

    def look():
        watch.before_optimizer()
        scale = float(getattr(trainer.engine.optimizer, "loss_scale", 1.0))
        for name, parameter in module.named_parameters():
            gradient[name] = safe_get_full_grad(parameter).double().clone() / scale

    trainer.step(rank.entering(0), clock.CpuClock(), look)
    found, after = watch.found(), weights_of(module)
    rate = configuration.deepspeed["optimizer"]["params"]["lr"]
    square = sum(float(g.square().sum()) for g in gradient.values())
    along = sum(float(((before[n] - after[n]) * g).sum()) for n, g in gradient.items())
    told = {"moved": along / rate / square, "whole": math.sqrt(square), **found.model_dump()}
    (folder / f"rank-{index}.json").write_text(json.dumps(told))
    dist.barrier()


def train(configuration):
    """Fork the ranks of one job, which imported everything already, and wait for them."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reference.create(folder / configuration.reference_key, configuration, "off")
        arguments = (folder, configuration, f"{folder}/store")
        ranks = [
            context.Process(target=run, args=(index, *arguments))
            for index in range(configuration.world)
        ]
        for one in ranks:
            one.start()
        for one in ranks:
            one.join()
        assert [one.exitcode for one in ranks] == [0] * configuration.world, configuration
        names = [folder / f"rank-{index}.json" for index in range(configuration.world)]
        return [json.loads(name.read_text()) for name in names]


if __name__ == "__main__":
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # as the server does
    torch.set_num_threads(1)  # threads would not survive the forks
    jobs = json.loads(sys.argv[1])
    found = {name: train(Configuration.model_validate(one)) for name, one in jobs.items()}
    print(json.dumps(found))
