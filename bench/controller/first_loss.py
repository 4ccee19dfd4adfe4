"""The first step's loss beside a forward pass in float64: whether the ranks computed the model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from bench.record import FirstLoss
from bench.record_files import first_loss_file
from bench.trial import Configuration

TOLERANCE = {"float32": 3e-7, "tf32": 1e-3, "bfloat16": 1e-3}
"""Share of the reference up to which a difference counts as rounding, by the precision of matrix
products. The mean over tokens averages the rounding of each: tiny to 160m with 64 to 1,024 tokens
were off by at most 3.7e-8 in float32 and 5.6e-5 in bfloat16; tf32 has not been measured."""


def read(folder: Path) -> float:
    """The loss that lies in the reference folder `folder`."""
    return float(json.loads(first_loss_file(folder).read_text())["loss"])


def judge(
    configuration: Configuration,
    shards: Sequence[Sequence[float]],
    reference: float | str | None,
) -> FirstLoss | None:
    """Compare `shards`, mean loss and number of valid labels of every rank in order.

    `reference` may be the reason why there is none. None where nothing is to be compared.
    """
    if reference is None or not shards:
        return None
    c, loss = configuration, mean_loss(shards, configuration)
    if isinstance(reference, str):
        return FirstLoss(loss=loss, reason=reference)
    tolerance = reference * TOLERANCE[c.precision]
    return FirstLoss(
        loss=loss,
        reference=reference,
        tolerance=tolerance,
        agrees=loss is not None and abs(loss - reference) <= tolerance,
    )


def mean_loss(shards: Sequence[Sequence[float]], configuration: Configuration) -> float | None:
    """The loss of the whole batch as `configuration.reference` defines it; None: not finite.

    The ranks of a sequence-parallel group are consecutive.
    """
    sp, means = configuration.sp, []
    size = len(shards) if configuration.reference == "token_mean" else sp
    try:
        for start in range(0, len(shards), size):
            group = shards[start : start + size]
            total = math.fsum(mean * labels for mean, labels in group)
            means.append(total / max(1.0, sum(labels for _, labels in group)))
        found = math.fsum(means) / len(means)
    except (OverflowError, ValueError):  # of infinities, or of numbers that add up to one
        return None
    return found if math.isfinite(found) else None
