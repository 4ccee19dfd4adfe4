"""Loss and gradient with the graph of the whole model in memory: for what is small, on CPU."""

from __future__ import annotations

from typing import Callable, Dict, Mapping, Optional

import torch
from torch import Tensor

from bench.trial import Configuration
from bench.worker import loss_definitions, model
from bench.worker.attention.local import causal_attention
from bench.worker.batch import global_batch, shard
from bench.worker.reference.files import Losses, Take


def loss_and_gradient(
    configuration: Configuration,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype,
    take: Take,
    take_other: Optional[Take] = None,
) -> Losses:
    """The losses of the whole batch; the gradient of `configuration.reference` goes to `take`.

    Replicas are taken one after another, and their gradients add up in place. `take_other` gets
    the gradient of the other definition.
    """
    c = configuration
    module = model.build(c.model, causal_attention, weights, dtype=dtype)
    batch = global_batch(c)
    labels = loss_definitions.valid_labels(batch)
    own, ratios = (
        loss_definitions.weights(c.reference, labels),
        loss_definitions.ratios(c.reference, labels),
    )
    other = None if take_other is None else _Other(module)
    losses = Losses(0.0, 0.0)
    for replica in range(c.dp):
        if other is not None:
            other.ratio = ratios[replica]
        mean, _ = module(*map(torch.from_numpy, shard(batch, replica, 0, 1)))
        loss = mean * (own[replica] * max(1, labels[replica]))
        loss.backward()
        losses = losses.plus(loss.item(), ratios[replica])
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        take(name, parameter.grad.double().numpy())
        if other is not None and take_other is not None:
            take_other(name, other.sums[name].double().numpy())
    return losses


class _Other:
    """Adds up what each backward pass gives a parameter, times `ratio`."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.ratio = 1.0
        self.sums: Dict[str, Tensor] = {}
        for name, parameter in module.named_parameters():
            self.sums[name] = torch.zeros_like(parameter)
            parameter.register_hook(self._adding(name))

    def _adding(self, name: str) -> Callable[[Tensor], None]:
        def add(gradient: Tensor) -> None:
            self.sums[name].add_(gradient, alpha=self.ratio)

        return add
