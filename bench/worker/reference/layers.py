"""Loss and gradient layer by layer, with the memory of one layer and one sequence.

Forward keeps each layer's input only. Backward takes the layers in reverse and computes each again
from its input. All sequences of all replicas pass a layer before the next is loaded, so that a
layer's weights are read twice and its gradient is complete when it is left. Within a layer what
concerns single tokens goes by tiles of them; attention alone sees whole sequences.

In float64 attention is `blocks.blockwise`. In another dtype, for the noise floor, it is
`scaled_dot_product_attention`, as in a trial; the sums over tiles are then kept in float32, so that
the tiles add no rounding that a trial has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, List, Mapping, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.theory import reference_cost
from bench.trial import Configuration, ModelSpec
from bench.worker import loss_definitions, model
from bench.worker.attention.local import causal_attention
from bench.worker.batch import global_batch
from bench.worker.reference.blocks import blockwise
from bench.worker.reference.files import Losses, Take
from bench.worker.reference.pieces import (
    Gradients,
    Head,
    after_attention,
    before_attention,
    leaf,
    wide,
)

Weights = Mapping[str, Tensor]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sizes:
    """How much is computed at once [tokens]; what is computed does not depend on it."""

    block: int
    """Queries, and keys, of a block of attention."""
    tile: int
    """Tokens of a layer's projections and feed-forward."""
    loss_tile: int
    """Tokens whose logits are alive."""

    @classmethod
    def of(cls, spec: ModelSpec) -> Sizes:
        """Sizes that `theory.reference_device_bytes` counts with."""
        tokens = reference_cost.TILE_BYTES // 8
        return cls(
            block=reference_cost.ATTENTION_BLOCK,
            tile=max(1, tokens // spec.ffn),
            loss_tile=max(1, tokens // spec.vocab),
        )


@dataclass(frozen=True)
class Row:
    """One row of the batch, each tensor [1, seq] on the device."""

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    weight: float
    """What its sum of cross-entropies counts in the loss (`loss_definitions.weights`)."""
    ratio: float
    """How many times as much it counts by the other definition."""


def loss_and_gradient(
    configuration: Configuration,
    weights: Weights,
    dtype: torch.dtype,
    take: Take,
    device: torch.device = CPU,
    sizes: Optional[Sizes] = None,
    beat: Optional[Callable[[], None]] = None,
    take_other: Optional[Take] = None,
) -> Losses:
    """The losses of the whole batch; the gradient of `configuration.reference` goes to `take`.

    `beat` is called after each layer of each sequence, as a sign of life. `take_other` gets the
    gradient of the other definition.
    """
    c = configuration
    kept = reference_cost.stored_inputs_bytes(c) <= reference_cost.INPUTS_ON_DEVICE_BYTES
    passes = _Passes(
        c.model,
        weights,
        dtype,
        device,
        store=device if kept else CPU,
        sizes=sizes or Sizes.of(c.model),
        take=take,
        beat=beat or _nothing,
        take_other=take_other,
    )
    with torch.no_grad():
        return passes.run(_sequences(c, device))


def loss(
    configuration: Configuration,
    weights: Weights,
    device: torch.device = CPU,
    sizes: Optional[Sizes] = None,
    beat: Optional[Callable[[], None]] = None,
) -> float:
    """The loss alone, in float64: a forward pass that keeps no layer's input."""
    spec = configuration.model
    passes = _Passes(
        spec,
        weights,
        torch.float64,
        device,
        store=device,
        sizes=sizes or Sizes.of(spec),
        take=_untaken,
        beat=beat or _nothing,
    )
    with torch.no_grad():
        return passes.loss(_sequences(configuration, device))


def _sequences(configuration: Configuration, device: torch.device) -> List[Row]:
    c, batch, found = configuration, global_batch(configuration), []
    counts = loss_definitions.valid_labels(batch)
    own = loss_definitions.weights(c.reference, counts)
    ratios = loss_definitions.ratios(c.reference, counts)
    for replica in range(c.dp):
        for row in range(c.micro_batch):
            place = (replica, slice(row, row + 1))
            arrays = (torch.from_numpy(array[place].copy()).to(device) for array in batch)
            tokens, labels, positions = arrays
            found.append(Row(tokens, labels, positions, own[replica], ratios[replica]))
    return found


@dataclass(frozen=True)
class _Passes:
    """Forward and backward of one model over some sequences; all under `no_grad`."""

    spec: ModelSpec
    weights: Weights
    dtype: torch.dtype
    device: torch.device
    store: torch.device
    """Where inputs of layers wait for backward."""
    sizes: Sizes
    take: Take
    beat: Callable[[], None]
    take_other: Optional[Take] = None

    def loss(self, sequences: List[Row]) -> float:
        """The loss alone."""
        x = self._embedded(sequences)
        for layer in range(self.spec.layers):
            x = self._forward(layer, sequences, x)
        head, total = self._loaded(lambda: Head(self.spec), ""), 0.0
        for sequence, output in zip(sequences, x):
            for part in _tiles(output, self.sizes.loss_tile):
                tile = head(output[:, part].to(self.device), sequence.labels[:, part])
                total += tile.item() * sequence.weight
        return total

    def run(self, sequences: List[Row]) -> Losses:
        """The losses; the gradient goes to `take`."""
        x = self._embedded(sequences)
        inputs: List[List[Tensor]] = []
        for layer in range(self.spec.layers):
            inputs.append(x)
            x = self._forward(layer, sequences, x)
        losses, upstream = self._loss(sequences, x)
        del x
        for layer in reversed(range(self.spec.layers)):
            upstream = self._backward(layer, sequences, inputs.pop(), upstream)
        self._embedding_backward(sequences, upstream)
        total = Losses(0.0, 0.0)
        for sequence, share in zip(sequences, losses):
            total = total.plus(share, sequence.ratio)
        return total

    def _embedded(self, sequences: List[Row]) -> List[Tensor]:
        embedding = self.weights["embedding.weight"]
        return [self._stored(F.embedding(s.tokens.cpu(), embedding)) for s in sequences]

    def _forward(self, layer: int, sequences: List[Row], x: List[Tensor]) -> List[Tensor]:
        block = self._block(layer)
        return [self._stored(self._layer(block, *pair)) for pair in zip(sequences, x)]

    def _backward(
        self, layer: int, sequences: List[Row], x: List[Tensor], upstream: List[Tensor]
    ) -> List[Tensor]:
        block = self._block(layer)
        gradients = self._gradients(block)
        found = []
        for parts in zip(sequences, x, upstream):
            found.append(self._stored(self._layer_backward(block, gradients, *parts)))
        gradients.hand_over(f"blocks.{layer}.", self.take, self.take_other)
        return found

    def _gradients(self, module: torch.nn.Module) -> Gradients:
        return Gradients(module, self.dtype, both=self.take_other is not None)

    def _block(self, layer: int) -> model.Block:
        exact = self.dtype == torch.float64
        core = blockwise(self.sizes.block) if exact else causal_attention
        return self._loaded(lambda: model.Block(self.spec, core), f"blocks.{layer}.")

    def _loaded(self, make: Callable[[], model.Module], prefix: str) -> model.Module:
        return model.materialized(make, self.weights, self.device, self.dtype, prefix=prefix)

    def _stored(self, x: Tensor) -> Tensor:
        self.beat()
        return x.to(self.store, self.dtype)

    def _rope(self, sequence: Row) -> Tuple[Tensor, Tensor]:
        spec = self.spec
        return model.rotary(sequence.positions, spec.head_dim, spec.rope_theta, self.dtype)

    def _layer(self, block: model.Block, sequence: Row, x: Tensor) -> Tensor:
        x = x.to(self.device)
        attended = block.attention._core[0](*self._projected(block, sequence, x))
        out = torch.empty_like(x)
        for part in _tiles(x, self.sizes.tile):
            out[:, part] = after_attention(block, x[:, part], attended[:, part])
        return out

    def _projected(
        self, block: model.Block, sequence: Row, x: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """q, k and v of the whole sequence."""
        cos, sin = self._rope(sequence)
        tiles = [
            before_attention(block, x[:, part], cos[:, part], sin[:, part])
            for part in _tiles(x, self.sizes.tile)
        ]
        q, k, v = (torch.cat(parts, dim=1) for parts in zip(*tiles))
        return q, k, v

    def _layer_backward(
        self,
        block: model.Block,
        gradients: Gradients,
        sequence: Row,
        x: Tensor,
        upstream: Tensor,
    ) -> Tensor:
        """Gradient of the layer's input; those of its parameters are added to `gradients`."""
        x, dx = x.to(self.device), upstream.to(self.device)
        qkv = [t.requires_grad_() for t in self._projected(block, sequence, x)]
        with torch.enable_grad():
            attended = block.attention._core[0](*qkv)
        dattended = torch.empty_like(attended)
        for part in _tiles(x, self.sizes.tile):
            local = [leaf(x[:, part]), leaf(attended[:, part])]
            with torch.enable_grad():
                out = after_attention(block, *local)
            dx[:, part], dattended[:, part] = gradients.add(
                [out], [dx[:, part]], local, sequence.ratio
            )
        dqkv = torch.autograd.grad(attended, qkv, dattended)
        del attended, dattended, qkv
        cos, sin = self._rope(sequence)
        for part in _tiles(x, self.sizes.tile):
            local = [leaf(x[:, part])]
            with torch.enable_grad():
                outs = before_attention(block, local[0], cos[:, part], sin[:, part])
            upstreams = [d[:, part] for d in dqkv]
            dx[:, part] += gradients.add(outs, upstreams, local, sequence.ratio)[0]
        return dx

    def _loss(
        self, sequences: List[Row], outputs: List[Tensor]
    ) -> Tuple[List[float], List[Tensor]]:
        """Each sequence's share of the loss, and the gradient of the last layer's output."""
        head = self._loaded(lambda: Head(self.spec), "")
        gradients, losses, upstream = self._gradients(head), [], []
        for sequence, output in zip(sequences, outputs):
            x, share = output.to(self.device), 0.0
            dx = torch.empty_like(x)
            for part in _tiles(x, self.sizes.loss_tile):
                local = [leaf(x[:, part])]
                with torch.enable_grad():
                    tile = head(local[0], sequence.labels[:, part]) * sequence.weight
                ones = [torch.ones_like(tile)]
                dx[:, part] = gradients.add([tile], ones, local, sequence.ratio)[0]
                share += tile.item()
            losses.append(share)
            upstream.append(self._stored(dx))
        gradients.hand_over("", self.take, self.take_other)
        return losses, upstream

    def _embedding_backward(self, sequences: List[Row], upstream: List[Tensor]) -> None:
        name, shape = "embedding.weight", self.weights["embedding.weight"].shape
        both = [(self.take, False)]
        if self.take_other is not None:
            both.append((self.take_other, True))
        for take, other in both:
            total = torch.zeros(shape, dtype=wide(self.dtype), device=self.device)
            for sequence, dx in zip(sequences, upstream):
                rows = dx[0].to(self.device, total.dtype)
                total.index_add_(0, sequence.tokens[0], rows, alpha=sequence.ratio if other else 1)
            take(name, total.double().cpu().numpy())


def _tiles(x: Tensor, tile: int) -> Iterator[slice]:
    """Slices of the sequence of `x` [1, seq, …]."""
    for start in range(0, x.shape[1], tile):
        yield slice(start, min(start + tile, x.shape[1]))


def _untaken(name: str, value: object) -> None:
    raise AssertionError(f"a forward pass has no gradient: {name}")


def _nothing() -> None:
    """No sign of life is asked for."""
