"""Operations and parameters: what a model must compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.trial import ModelSpec


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


def recomputed_matmul_parameters(model: ModelSpec) -> int:
    """Weights whose products a step computes a second time [elements].

    Under activation checkpointing these are a layer's weights but the down projection: torch's
    non-reentrant checkpoint stops the second forward pass as soon as it has every tensor that
    backward wants, and the last one is the down projection's input. With `loss_tiles` the
    lm_head is computed again, since the softmax of its logits is what backward wants.
    Source: `_StopRecomputationError` in torch's `utils/checkpoint.py`, and `bench/worker/model.py`.
    """
    again = 0
    if model.activation_checkpointing:
        again += model.layers * (layer_matmul_parameters(model) - model.hidden * model.ffn)
    if model.loss_tiles > 1:
        again += model.vocab * model.hidden
    return again


def recomputed_attention_flops_per_token(model: ModelSpec, seq_len: int) -> float:
    """FLOPs of causal attention's second forward pass: 4 L H d S c under checkpointing, else 0."""
    if not model.activation_checkpointing:
        return 0.0
    return 4 * model.layers * model.heads * model.head_dim * seq_len * causal_share(seq_len)


def hardware_flops_per_step(model: ModelSpec, dp: int, micro_batch: int, seq_len: int) -> float:
    """FLOPs that are executed in one step: model FLOPs, and recomputation where there is any."""
    again = 2 * recomputed_matmul_parameters(model)
    again_per_token = again + recomputed_attention_flops_per_token(model, seq_len)
    tokens = dp * micro_batch * seq_len
    return model_flops_per_step(model, dp, micro_batch, seq_len) + tokens * again_per_token


def utilization(flops_per_step: float, step_s: float, world: int, peak_flops: float) -> float:
    """Share of the peak that is reached: MFU of model FLOPs, HFU of hardware FLOPs [0..1].

    `flops_per_step` is of all ranks, `peak_flops` of one device [FLOP/s]. Above 1, something
    was measured wrongly.
    """
    return flops_per_step / (step_s * world * peak_flops)


def tokens_per_second(dp: int, micro_batch: int, seq_len: int, step_s: float) -> float:
    """Tokens per second of all ranks together, each token counted once.

    The ranks of a sequence-parallel group share a sequence, so sp does not enter.
    """
    return dp * micro_batch * seq_len / step_s
