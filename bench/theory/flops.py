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


def tokens_per_second(dp: int, micro_batch: int, seq_len: int, step_s: float) -> float:
    """Tokens per second of all ranks together, each token counted once.

    The ranks of a sequence-parallel group share a sequence, so sp does not enter.
    """
    return dp * micro_batch * seq_len / step_s
