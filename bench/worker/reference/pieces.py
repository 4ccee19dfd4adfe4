"""The parts of a decoder that concern single tokens, and sums of their parameters' gradients."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from bench.trial import ModelSpec
from bench.worker import model
from bench.worker.reference.files import Take


class Head(nn.Module):
    """What follows the last layer, under the names that it has in the decoder."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.norm = model.RMSNorm(spec.hidden, spec.norm_eps)
        self.head = nn.Linear(spec.hidden, spec.vocab, bias=False)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        logits = self.head(self.norm(x).flatten(0, 1))
        return model.cross_entropy(logits, labels.flatten())


class Gradients:
    """Gradients of a module's parameters, summed over tiles and sequences in float32 or wider.

    With `both`, a second sum is kept, of the other definition of the loss.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, both: bool = False) -> None:
        self._parameters = dict(module.named_parameters())
        self._sums: Dict[str, Tensor] = {}
        self._others: Optional[Dict[str, Tensor]] = {} if both else None
        self._dtype = wide(dtype)

    def add(
        self,
        outputs: Sequence[Tensor],
        upstream: Sequence[Tensor],
        inputs: List[Tensor],
        ratio: float = 1.0,
    ) -> List[Tensor]:
        """Add what `outputs` tells of the parameters; returns the gradients of `inputs`.

        By the other definition it counts `ratio` times as much.
        """
        names, parameters = list(self._parameters), list(self._parameters.values())
        found = torch.autograd.grad(outputs, [*inputs, *parameters], upstream, allow_unused=True)
        for name, gradient in zip(names, found[len(inputs) :]):
            if gradient is None:  # of the layer's other half
                continue
            if self._others is not None:
                if name not in self._others:
                    self._others[name] = torch.zeros_like(gradient, dtype=self._dtype)
                self._others[name].add_(gradient, alpha=ratio)
            if name in self._sums:
                self._sums[name] += gradient
            else:
                self._sums[name] = gradient.to(self._dtype)
        return list(found[: len(inputs)])

    def hand_over(self, prefix: str, take: Take, take_other: Optional[Take] = None) -> None:
        """Tell `take` what has come together, and `take_other` the other definition's."""
        for name, total in self._sums.items():
            take(prefix + name, total.double().cpu().numpy())
        if self._others is not None and take_other is not None:
            for name, total in self._others.items():
                take_other(prefix + name, total.double().cpu().numpy())


def before_attention(
    block: model.Block, x: Tensor, cos: Tensor, sin: Tensor
) -> Tuple[Tensor, Tensor, Tensor]:
    """q, k and v of some tokens `x` of a layer's input."""
    return block.attention.project(block.attention_norm(x), cos, sin)


def after_attention(block: model.Block, x: Tensor, attended: Tensor) -> Tensor:
    """A layer's output for some tokens `x` of its input and what attention gave them."""
    x = x + block.attention.o(attended.flatten(2))
    return x + block.ffn(block.ffn_norm(x))


def leaf(x: Tensor) -> Tensor:
    """`x` as the start of a graph of its own."""
    return x.detach().requires_grad_()


def wide(dtype: torch.dtype) -> torch.dtype:
    """What sums of `dtype` are kept in: float32 or wider."""
    return torch.float64 if dtype == torch.float64 else torch.float32
