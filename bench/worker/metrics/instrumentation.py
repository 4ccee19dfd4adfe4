"""What measuring costs: steps of the harness and steps of a bare loop, taken in turns."""

from __future__ import annotations

import random
import time
from typing import Callable, List

import torch
import torch.distributed as dist

from bench.worker import plugins
from bench.worker.mesh import Mesh, barrier
from bench.worker.metrics import clock
from bench.worker.model import ShardLoss
from bench.worker.rank import Rank
from bench.worker.reference import Reference
from bench.worker.training import Trainer

WARM_UP = 20


def interleaved(rank: Rank, rounds: int, steps: int) -> List[List[List[float]]]:
    """Seconds on the slowest rank, [rounds][bare, instrumented][steps].

    Both kinds of step run on one engine, in an order that is shuffled anew in every round, so that
    a drift of the machine hits both alike.
    """
    mesh = Mesh.of(rank)
    reference = Reference(rank.reference, rank.configuration.model)
    trainer = Trainer(rank.configuration, mesh, reference, rank.device)
    cuda = rank.device.type == "cuda"
    stopwatch = clock.CudaClock() if cuda else clock.CpuClock()
    aggregate = plugins.load("loss", rank.configuration.loss).aggregate
    engine, batch, group = trainer.engine, trainer._batch, mesh.sp_group

    def bare() -> None:
        barrier(rank.device)
        loss = aggregate(ShardLoss(*engine(*batch)), group)
        engine.backward(loss)
        engine.step()

    def instrumented() -> None:
        trainer.step(rank.entering(0), stopwatch, lambda: None)

    def timed(step: Callable[[], None]) -> float:
        start = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(WARM_UP):
        timed(bare)
        timed(instrumented)
    measured: List[List[List[float]]] = []
    for index in range(rounds):
        order = [0] * steps + [1] * steps
        random.Random(index).shuffle(order)  # the same on every rank
        seconds: List[List[float]] = [[], []]
        for which in order:
            seconds[which].append(timed((bare, instrumented)[which]))
        measured.append(seconds)
    slowest = torch.tensor(measured, device=rank.device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)  # a step takes as long as its slowest rank
    found: List[List[List[float]]] = slowest.tolist()
    return found
