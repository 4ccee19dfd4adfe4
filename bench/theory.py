"""What a step must cost: FLOPs, bytes on the wire, bytes in memory. Pure arithmetic.

Symbols: b sequences per replica, S global sequence length, P = sp, H/K query/kv heads,
d head size, e bytes per element, L layers, h hidden, f SwiGLU width, V vocabulary.
Imports on every interpreter that we measure: Python 3.9 or later, standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.trial import ModelSpec

LOGITS_COPIES = 3
"""Float32 tensors of the logits' shape alive at once: logits, log-softmax, their gradient."""


@dataclass(frozen=True)
class PassBytes:
    """Bytes that one rank sends in the passes of a step (or of one layer of it)."""

    forward: int
    recompute: int
    """Forward again, in backward, under activation checkpointing; else 0."""
    backward: int

    @property
    def total(self) -> int:
        """Bytes of all passes."""
        return self.forward + self.recompute + self.backward

    def times(self, count: int) -> PassBytes:
        """The same for `count` layers."""
        return PassBytes(self.forward * count, self.recompute * count, self.backward * count)


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


def tokens_per_second(dp: int, micro_batch: int, seq_len: int, step_s: float) -> float:
    """Tokens per second of all ranks together, each token counted once.

    The ranks of a sequence-parallel group share a sequence, so sp does not enter.
    """
    return dp * micro_batch * seq_len / step_s


def layer_matmul_parameters(model: ModelSpec) -> int:
    """Weights of one layer that multiply activations [elements].

    q and o are h x Hd, k and v are h x Kd, gate, up and down are h x f.
    """
    attention = 2 * model.hidden * model.head_dim * (model.heads + model.kv_heads)
    return attention + 3 * model.hidden * model.ffn


def matmul_parameters(model: ModelSpec) -> int:
    """N_matmul: layers and the untied lm_head; the input embedding is a look-up [elements]."""
    return model.layers * layer_matmul_parameters(model) + model.vocab * model.hidden


def total_parameters(model: ModelSpec) -> int:
    """All weights: N_matmul, the input embedding, two norms a layer and the last [elements]."""
    norms = (2 * model.layers + 1) * model.hidden
    return matmul_parameters(model) + model.vocab * model.hidden + norms


def causal_share(seq_len: int) -> float:
    """Share of the score matrix that causal attention needs: (1 + 1/S) / 2."""
    return (1 + 1 / seq_len) / 2


def model_flops_per_token(model: ModelSpec, seq_len: int, causal: bool = True) -> float:
    """Model FLOPs per token, forward and backward: 6 N_matmul + 12 L H d S c.

    c is the causal share, or 1 without a mask. Source: arXiv 2204.02311 (PaLM), appendix B,
    with the masked half of the scores left out.
    """
    share = causal_share(seq_len) if causal else 1.0
    attention = 12 * model.layers * model.heads * model.head_dim * seq_len * share
    return 6 * matmul_parameters(model) + attention


def model_flops_per_step(
    model: ModelSpec, dp: int, micro_batch: int, seq_len: int, causal: bool = True
) -> float:
    """Model FLOPs of one step of all ranks together."""
    return dp * micro_batch * seq_len * model_flops_per_token(model, seq_len, causal)


def hardware_flops_per_step(
    model: ModelSpec, dp: int, micro_batch: int, seq_len: int, causal: bool = True
) -> float:
    """FLOPs that are executed in one step: model FLOPs, and recomputation where there is any.

    Activation checkpointing runs each layer's forward again, a third of the layer's model
    FLOPs; the lm_head is not recomputed. Source: arXiv 2205.05198, section 5 and appendix A.
    """
    flops = model_flops_per_step(model, dp, micro_batch, seq_len, causal)
    if model.activation_checkpointing:
        lm_head = 6 * model.vocab * model.hidden * dp * micro_batch * seq_len
        flops += (flops - lm_head) / 3
    return flops


def utilization(flops_per_step: float, step_s: float, world: int, peak_flops: float) -> float:
    """Share of the peak that is reached: MFU of model FLOPs, HFU of hardware FLOPs [0..1].

    `flops_per_step` is of all ranks, `peak_flops` of one device [FLOP/s]. Above 1, something
    was measured wrongly.
    """
    return flops_per_step / (step_s * world * peak_flops)


def ulysses_bytes_per_layer(
    model: ModelSpec, sp: int, micro_batch: int, seq_len: int, element_bytes: int
) -> PassBytes:
    """Bytes that one rank sends to others in a layer's all-to-alls.

    Forward: e b (S/P) d (2H + 2K') (P-1)/P for q, k, v and the output, where K' = max(K, P)
    since kv heads are replicated until every rank has one. Backward is the same, and under
    activation checkpointing forward happens twice. Source: arXiv 2309.14509, section 3.

    Raises ValueError where heads or sequence do not divide by sp.
    """
    kv_heads = max(model.kv_heads, sp)
    for name, value in (("seq_len", seq_len), ("heads", model.heads), ("kv_heads", kv_heads)):
        if value % sp:
            raise ValueError(f"{name}={value} is not divisible by sp={sp}")
    heads_per_peer = 2 * (model.heads + kv_heads) // sp
    tokens = micro_batch * seq_len // sp
    sent = element_bytes * tokens * model.head_dim * heads_per_peer * (sp - 1)
    return PassBytes(sent, sent if model.activation_checkpointing else 0, sent)


def ulysses_bytes_per_step(
    model: ModelSpec, sp: int, micro_batch: int, seq_len: int, element_bytes: int
) -> PassBytes:
    """Bytes that one rank sends to others in the all-to-alls of all layers of a step."""
    per_layer = ulysses_bytes_per_layer(model, sp, micro_batch, seq_len, element_bytes)
    return per_layer.times(model.layers)


def ring_bytes_per_layer(
    model: ModelSpec, sp: int, micro_batch: int, seq_len: int, element_bytes: int
) -> PassBytes:
    """Bytes that one rank sends in a layer of ring attention.

    Forward: e b 2K d S (P-1)/P, every rank passing on k and v P-1 times; backward twice that,
    since their gradients travel along. Source: arXiv 2310.01889, section 3.
    """
    if seq_len % sp:
        raise ValueError(f"seq_len={seq_len} is not divisible by sp={sp}")
    block = element_bytes * micro_batch * 2 * model.kv_heads * model.head_dim * (seq_len // sp)
    sent = block * (sp - 1)
    return PassBytes(sent, sent if model.activation_checkpointing else 0, 2 * sent)


def all_to_all_bus_bandwidth(size_bytes: int, seconds: float, ranks: int) -> float:
    """Bus bandwidth of an all-to-all [bytes/s]: bytes/time (n-1)/n.

    `size_bytes` is what each rank hands in, its own part included.
    Source: nccl-tests, doc/PERFORMANCE.md.
    """
    return size_bytes / seconds * (ranks - 1) / ranks


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
