"""The whole gradient beside the whole exact reference, parameter by parameter."""

from __future__ import annotations

from typing import Any, Dict, Iterator, Optional, Tuple

import numpy as np
from deepspeed.utils import safe_get_full_grad

from bench.record import GradientError
from bench.worker.mesh import Mesh
from bench.worker.metrics.gradient import judge
from bench.worker.rank import Rank
from bench.worker.reference import Reference
from bench.worker.training import Trainer


def check(rank: Rank, trainer: Trainer, mesh: Mesh) -> Dict[str, Any]:
    """The field `gradient`."""
    reference = Reference(rank.reference, rank.configuration.model)
    return {"gradient": gradient_error(rank, trainer, reference).model_dump()}


def gradient_error(rank: Rank, trainer: Trainer, reference: Reference) -> GradientError:
    """This rank's reduced gradient before clipping, judged; call it before the optimizer steps."""

    def gradients() -> Iterator[Tuple[str, Optional[np.ndarray]]]:
        for name, parameter in trainer.engine.module.named_parameters():
            rank.enter("gradient", 0)  # each one is a sign of life
            full = safe_get_full_grad(parameter)
            yield name, None if full is None else full.float().cpu().numpy()

    return judge(
        gradients(),
        reference.gradient(),
        reference.noise(rank.configuration),
        reference_loss=reference.loss(),
        rank=rank.index,
        divisor=loss_scale(trainer),
        other=reference.other(),
    )


def loss_scale(trainer: Trainer) -> float:
    """What the gradient is too large by: optimizers for 16 bit scale the loss until they step."""
    return float(getattr(trainer.engine.optimizer, "loss_scale", 1.0))
