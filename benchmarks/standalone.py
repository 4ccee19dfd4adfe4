"""A rank without the harness's server, as `python -m torch.distributed.run` starts it.

Runs inside a measured environment. Arguments: a configuration as JSON, the reference folder,
and what to do:

    train          the `train` scenario; prints its samples as JSON, one line per rank
    instrument N K N rounds of K bare and K instrumented steps, interleaved; rank 0 prints the
                   seconds of all steps as JSON: [[bare …, instrumented …] per round]
"""

from __future__ import annotations

import json
import mmap
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, List

import deepspeed
import torch
import torch.distributed as dist

from bench.theory import gradient_mode
from bench.trial import Configuration
from bench.worker import plugins
from bench.worker.mesh import Mesh
from bench.worker.metrics.clock import CpuClock
from bench.worker.model import ShardLoss
from bench.worker.rank import HEARTBEAT, Rank, Request, join
from bench.worker.reference import Reference
from bench.worker.training import Trainer


def main() -> None:
    """Set up as a forked rank does, then do what the arguments say."""
    configuration = Configuration.model_validate_json(sys.argv[1])
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    rank = _join(configuration, Path(sys.argv[2]))
    if sys.argv[3] == "train":
        result = plugins.load("scenarios", "train").run(rank)
        _print(result["samples"])
    else:
        _instrument(rank, rounds=int(sys.argv[4]), steps=int(sys.argv[5]))
    dist.destroy_process_group()


def _join(configuration: Configuration, reference: Path) -> Rank:
    request = Request(
        configuration=configuration,
        scratch=Path(tempfile.mkdtemp(prefix=f"spbench-{os.getpid()}-")),
        log=reference,
        reference=reference,
        store_port=int(os.environ["MASTER_PORT"]),
        threads=max(1, len(os.sched_getaffinity(0)) // configuration.world),
        check=gradient_mode(configuration),
    )
    beats = mmap.mmap(-1, configuration.world * HEARTBEAT.size)
    rank = Rank(int(os.environ["RANK"]), request, beats)
    join(rank, lambda: next(dist.rendezvous("env://"))[0])
    return rank


def _instrument(rank: Rank, rounds: int, steps: int) -> None:
    mesh = Mesh.create(rank.configuration.sp)
    reference = Reference(rank.reference, rank.configuration.model)
    trainer = Trainer(rank.configuration, mesh, reference, rank.device, rank.beat)
    clock = CpuClock()
    aggregate = plugins.load("loss", rank.configuration.loss).aggregate
    engine, batch, group = trainer.engine, trainer._batch, mesh.sp_group

    def bare() -> None:
        dist.barrier()
        loss = aggregate(ShardLoss(*engine(*batch)), group)
        engine.backward(loss)
        engine.step()

    def instrumented() -> None:
        trainer.step(rank.entering(0), clock, lambda: None)

    for _ in range(20):
        bare()
        instrumented()
    measured: List[List[List[float]]] = []
    for index in range(rounds):
        order = [0] * steps + [1] * steps
        random.Random(index).shuffle(order)  # the same on every rank
        seconds: List[List[float]] = [[], []]
        for which in order:
            seconds[which].append(_timed((bare, instrumented)[which]))
        measured.append(seconds)
    slowest = torch.tensor(measured)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)  # a step takes as long as its slowest rank
    if rank.index == 0:
        _print(slowest.tolist())


def _timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _print(value: object) -> None:
    sys.stdout.write("RESULT " + json.dumps(value) + "\n")  # one write: ranks share the pipe
    sys.stdout.flush()


if __name__ == "__main__":
    main()
