"""Bytes in memory: what a rank must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.trial import ModelSpec

LOGITS_COPIES = 3
"""Float32 tensors of the logits' shape alive at once: logits, log-softmax, their gradient."""


@dataclass(frozen=True)
class ModelStateBytes:
    """Bytes per rank that a model's state takes, whatever the sequence length."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """Bytes of all three."""
        return self.weights + self.gradients + self.optimizer


def model_state_bytes(
    parameters: int, zero: int, world: int, element_bytes: int
) -> ModelStateBytes:
    """Weights, gradients and Adam's state per rank under a ZeRO stage.

    Element size 4 keeps Adam's two moments (8 bytes a parameter) and updates the weights in
    place; element size 2 adds the float32 master copy (12). Stage 1 splits the optimizer,
    2 the gradients too, 3 the weights too, over `world`: DeepSpeed partitions over the ranks
    of a sequence-parallel group as well. Shards are rounded up.
    Source: arXiv 1910.02054, section 3 and figure 1.
    """
    optimizer = 8 if element_bytes >= 4 else 12

    def shard(size: int, from_stage: int) -> int:
        return -(-size // world) if zero >= from_stage else size

    return ModelStateBytes(
        weights=shard(parameters, 3) * element_bytes,
        gradients=shard(parameters, 2) * element_bytes,
        optimizer=shard(parameters, 1) * optimizer,
    )


def live_layer_bytes(
    model: ModelSpec, sp: int, micro_batch: int, seq_len: int, element_bytes: int
) -> int:
    """Activations that one layer keeps for its backward, per rank.

    Counted as in arXiv 2205.05198, section 4, for this layer and attention that does not
    keep its scores: 4h (input and output of both norms), 2Hd + 2Kd (q, k, v and the output),
    4f (gate, up, silu(gate), their product), e bytes each, for b S/P tokens.
    """
    width = 4 * model.hidden + 2 * model.head_dim * (model.heads + model.kv_heads) + 4 * model.ffn
    return element_bytes * micro_batch * seq_len * width // sp


def activation_bytes(
    model: ModelSpec, sp: int, micro_batch: int, seq_len: int, element_bytes: int
) -> int:
    """Activations of all layers per rank, at the peak.

    With activation checkpointing: each layer's input, e b S h / P, and one live layer.
    """
    live = live_layer_bytes(model, sp, micro_batch, seq_len, element_bytes)
    if not model.activation_checkpointing:
        return model.layers * live
    inputs = model.layers * element_bytes * micro_batch * seq_len * model.hidden // sp
    return inputs + live


def logits_bytes(model: ModelSpec, sp: int, micro_batch: int, seq_len: int) -> int:
    """Logits and what the loss makes of them, per rank: k 4 b (S/P) V, k = `LOGITS_COPIES`."""
    return LOGITS_COPIES * 4 * micro_batch * seq_len * model.vocab // sp
