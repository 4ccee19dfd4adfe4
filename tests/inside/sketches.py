"""Real ranks train to the end of a backward pass, then sketch the gradient and save it whole.

Usage: sketches.py FOLDER JOBS, with JOBS a JSON object: by name, a configuration and a fault.

Prints SplitMix64's outputs and sketches of known vectors. Each job leaves the sketch that
`bench.worker.checking.sketch.check` writes, FOLDER/sketches/NAME.npz, and beforehand the whole
gradient by parameter as `safe_get_full_grad` gives it, FOLDER/NAME.npz. Faults:

    share_lost     rank 1's part counts as zeros      share_unseen   no rank sees its own part
    sign_flipped   rank 1's part has the wrong sign
"""

import json
import mmap
import multiprocessing
import sys
import tempfile
from pathlib import Path

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad

from bench.trial import Configuration
from bench.worker import gradient_share, reference
from bench.worker.checking import sketch
from bench.worker.mesh import Mesh
from bench.worker.metrics import clock, countsketch
from bench.worker.rank import HEARTBEAT, Rank, Request, join
from bench.worker.training import Trainer


def hashes():
    cpu = torch.device("cpu")
    vector = torch.arange(1.0, 9001.0)
    whole = countsketch.sketch("head.weight", 9000, 0, vector)
    parts = [(0, 4999), (4999, 5000), (5000, 9000)]
    added = sum(countsketch.sketch("head.weight", 9000, a, vector[a:b]) for a, b in parts)
    return {
        "splitmix64(0)": countsketch.hashes(0, 0, 3, cpu).tolist(),
        "splitmix64(1234567)": countsketch.hashes(1234567, 0, 5, cpu).tolist(),
        "later": countsketch.hashes(1234567, 3, 2, cpu).tolist(),
        "key": countsketch.key_of("head.weight"),
        "whole": whole.tolist(),
        "added": added.tolist(),
        "short": countsketch.sketch("norm.weight", 4, 1, torch.tensor([5.0, 7.0])).tolist(),
        "bfloat16": countsketch.sketch("head.weight", 9000, 0, vector.bfloat16()).tolist(),
    }


def faulty(fault):
    held = gradient_share.held

    def replaced(parameter):
        share = held(parameter)
        if fault == "share_unseen" or share is None:
            return None
        if dist.get_rank() != 1:
            return share
        factor = {"share_lost": 0.0, "sign_flipped": -1.0}[fault]
        return share._replace(values=share.values * factor)

    return replaced


def run(index, folder, name, configuration, store, fault):
    beats = mmap.mmap(-1, HEARTBEAT.size * configuration.world)
    log = folder / "logs" / f"{name}.log"
    weights = folder / configuration.reference_key
    rank = Rank(index, Request(configuration, folder, log, weights, 0, 1, "sketch"), beats)
    join(rank, lambda: dist.FileStore(store, configuration.world))
    mesh = Mesh.create(configuration.sp)
    initial = reference.Reference(rank.reference, configuration.model)
    trainer = Trainer(configuration, mesh, initial, rank.device)

    def check():
        whole = {n: safe_get_full_grad(p) for n, p in trainer.engine.module.named_parameters()}
        if fault:
            sketch.held = faulty(fault)
        found = sketch.check(rank, trainer, mesh)
        assert found == {"sketch": f"sketches/{name}.npz", "sketch_version": 1}, found
        if index == 0:
            scale = float(getattr(trainer.engine.optimizer, "loss_scale", 1.0))
            arrays = {n: g.double().numpy() / scale for n, g in whole.items()}
            np.savez(folder / f"{name}.npz", **arrays)

    trainer.step(rank.entering(0), clock.CpuClock(), check)
    dist.barrier()


def train(folder, name, configuration, fault):
    """Fork the ranks of one job, which imported everything already, and wait for them."""
    reference.create(folder / configuration.reference_key, configuration, "sketch")
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as store:
        arguments = (folder, name, configuration, f"{store}/store", fault)
        ranks = [
            context.Process(target=run, args=(index, *arguments))
            for index in range(configuration.world)
        ]
        for one in ranks:
            one.start()
        for one in ranks:
            one.join()
    assert [one.exitcode for one in ranks] == [0] * configuration.world, name


if __name__ == "__main__":
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # as the server does
    torch.set_num_threads(1)  # threads would not survive the forks
    for name, (configuration, fault) in json.loads(sys.argv[2]).items():
        train(Path(sys.argv[1]), name, Configuration.model_validate(configuration), fault)
    print(json.dumps(hashes()))
