"""One training step and what its gradient is: for scenarios that ask nothing else."""

from __future__ import annotations

from typing import Any, Dict, List, Type

from bench.record import GradientError
from bench.worker.checking.exact import gradient_error
from bench.worker.mesh import Mesh
from bench.worker.metrics import clock
from bench.worker.rank import Rank
from bench.worker.reference import Reference
from bench.worker.training import Trainer


def judged(rank: Rank, trainer: Type[Trainer]) -> Dict[str, Any]:
    """Train one step with a `trainer`; the field `gradient` of this rank's result.

    Raises:
        ValueError: there is no exact reference: not asked for, or it could not be made.
    """
    c, request = rank.configuration, rank.request
    if request.check != "exact":
        why = request.check_reason or f"gradient_check={c.gradient_check}"
        raise ValueError(f"scenario={c.scenario} needs the exact reference: {why}")
    mesh, reference = Mesh.create(c.sp), Reference(rank.reference, c.model)
    one = trainer(c, mesh, reference, rank.device)
    found: List[GradientError] = []
    make_clock = clock.CudaClock if rank.device.type == "cuda" else clock.CpuClock
    loss = one.step(
        rank.entering(0),
        make_clock(),
        lambda: found.append(gradient_error(rank, one, reference)),
    )
    found[0].loss = float(loss)
    return {"gradient": found[0].model_dump()}
