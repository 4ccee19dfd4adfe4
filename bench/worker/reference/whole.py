"""Loss and gradient with the graph of the whole model in memory: for what is small, on CPU."""

from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor

from bench.trial import Configuration
from bench.worker import model
from bench.worker.attention.local import causal_attention
from bench.worker.batch import global_batch, shard
from bench.worker.reference.files import Take


def loss_and_gradient(
    configuration: Configuration, weights: Mapping[str, Tensor], dtype: torch.dtype, take: Take
) -> float:
    """Mean over replicas of the mean over a replica's valid labels; its gradient goes to `take`.

    Replicas are taken one after another, and their gradients add up in place.
    """
    module = model.build(configuration.model, causal_attention, weights, dtype=dtype)
    batch, total = global_batch(configuration), 0.0
    for replica in range(configuration.dp):
        mean, _ = module(*map(torch.from_numpy, shard(batch, replica, 0, 1)))
        (mean / configuration.dp).backward()
        total += mean.item() / configuration.dp
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        take(name, parameter.grad.double().numpy())
    return total
