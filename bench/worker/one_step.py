"""One training step and what its gradient is: for scenarios that ask nothing else."""

from __future__ import annotations

from typing import Any, Dict, Type

from bench.worker import plugins
from bench.worker.mesh import Mesh
from bench.worker.metrics import clock
from bench.worker.metrics.clipping import ClippingWatch
from bench.worker.rank import Rank
from bench.worker.reference import Reference
from bench.worker.training import Trainer


def judged(rank: Rank, trainer: Type[Trainer]) -> Dict[str, Any]:
    """Train one step with a `trainer`; what its check adds to this rank's result.

    Raises:
        ValueError: nothing is compared: not asked for, or there is no exact reference.
    """
    c, request = rank.configuration, rank.request
    if request.check == "off":
        why = request.check_reason or f"gradient_check={c.gradient_check}"
        raise ValueError(f"scenario={c.scenario} is there to judge the gradient: {why}")
    mesh, reference = Mesh.of(rank), Reference(rank.reference, c.model)
    one = trainer(c, mesh, reference, rank.device, rank.beat)
    checked: Dict[str, Any] = {}
    watch = ClippingWatch(one.engine, rank.device)
    make_clock = clock.CudaClock if rank.device.type == "cuda" else clock.CpuClock

    def check() -> None:
        watch.before_optimizer()
        if request.check != "proxy":  # which is another trial
            checked.update(plugins.load("checking", request.check).check(rank, one, mesh))

    loss = one.step(rank.entering(0), make_clock(), check)
    checked["clipping"] = watch.found().model_dump()
    assert one.shard_loss is not None
    checked["first_loss"] = [part.double().item() for part in one.shard_loss]
    if checked.get("gradient"):
        checked["gradient"]["loss"] = float(loss)
    return checked
