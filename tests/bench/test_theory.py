"""Formulas against numbers worked out by hand."""

from __future__ import annotations

import pytest

from bench import theory
from bench.trial import ModelSpec

# d = 8/4 = 2. Per layer: q, o 8*8 each, k, v 8*4 each = 192; gate, up, down 3*8*16 = 384.
SMALL = ModelSpec(name="small", layers=3, hidden=8, heads=4, kv_heads=2, ffn=16, vocab=10)
CHECKPOINTED = SMALL.model_copy(update={"activation_checkpointing": True})
LLAMA_3_8B = ModelSpec(
    name="8b", layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=128256
)


def test_each_token_counts_once_whatever_sp_is():
    assert theory.tokens_per_second(dp=2, micro_batch=3, seq_len=100, step_s=0.5) == 1200


def test_parameters():
    assert theory.layer_matmul_parameters(SMALL) == 192 + 384
    assert theory.matmul_parameters(SMALL) == 3 * 576 + 10 * 8  # 1808
    assert theory.total_parameters(SMALL) == 1808 + 10 * 8 + 7 * 8  # 7 norms


def test_parameters_of_llama_3_8b_are_the_published_ones():
    assert theory.total_parameters(LLAMA_3_8B) == 8_030_261_248


def test_model_flops_count_the_causal_half_as_half():
    # 6*1808 = 10848; full attention 12*3*4*2*4 = 1152 a token; causal share of S=4 is 5/8.
    assert theory.model_flops_per_token(SMALL, 4, causal=False) == 10848 + 1152
    assert theory.model_flops_per_token(SMALL, 4) == 10848 + 720
    assert theory.model_flops_per_step(SMALL, dp=2, micro_batch=3, seq_len=4) == 24 * 11568


def test_causal_share_counts_the_diagonal():
    assert theory.causal_share(1) == 1
    assert theory.causal_share(4) == pytest.approx(10 / 16)


def test_recomputation_goes_to_hardware_flops_only():
    model_flops = theory.model_flops_per_step(SMALL, 1, 1, 4)  # 4 * 11568 = 46272
    assert theory.model_flops_per_step(CHECKPOINTED, 1, 1, 4) == model_flops == 46272
    assert theory.hardware_flops_per_step(SMALL, 1, 1, 4) == model_flops
    # Again, of 4 tokens: 2*3*(576 - 128 of the down projection) = 2688 each, and a third of 720.
    assert theory.hardware_flops_per_step(CHECKPOINTED, 1, 1, 4) == 46272 + 4 * (2688 + 240)


def test_tiles_compute_the_head_again():
    tiled = SMALL.model_copy(update={"loss_tiles": 2})
    assert theory.hardware_flops_per_step(tiled, 1, 1, 4) == 46272 + 4 * 2 * 80


def test_utilization():
    assert theory.utilization(8e12, step_s=2.0, world=4, peak_flops=2e12) == 0.5


def test_ulysses_bytes():
    # One peer gets 2*(4+2)/2 = 6 heads of 2 elements for b*S/P = 3*8/2 = 12 tokens, 4 bytes each.
    expected = 4 * 12 * 2 * 6 * 1
    found = theory.ulysses_bytes_per_layer(SMALL, sp=2, micro_batch=3, seq_len=8, element_bytes=4)
    assert found == theory.PassBytes(expected, 0, expected)
    formula = 4 * 3 * (8 / 2) * 2 * (2 * 4 + 2 * 2) * (2 - 1) / 2
    assert expected == formula == 576


def test_ulysses_replicates_kv_heads_when_ranks_are_more():
    # K' = 4: 2*(4+4)/4 = 4 heads to each of 3 peers, 1*8/4 = 2 tokens, 2 elements, 2 bytes.
    found = theory.ulysses_bytes_per_layer(SMALL, sp=4, micro_batch=1, seq_len=8, element_bytes=2)
    assert found.forward == 2 * 2 * 2 * 4 * 3


def test_ulysses_bytes_of_a_step_triple_under_checkpointing():
    step = theory.ulysses_bytes_per_step(CHECKPOINTED, 2, 3, 8, 4)
    assert step == theory.PassBytes(3 * 576, 3 * 576, 3 * 576)
    assert step.total == 3 * 3 * 576
    assert theory.ulysses_bytes_per_step(SMALL, 2, 3, 8, 4).total == 2 * 3 * 576


@pytest.mark.parametrize(
    ("sp", "seq_len", "named"),
    [
        pytest.param(3, 9, "heads=4 is not divisible by sp=3", id="heads"),
        pytest.param(2, 9, "seq_len=9 is not divisible by sp=2", id="sequence"),
    ],
)
def test_ulysses_refuses_what_does_not_divide(sp, seq_len, named):
    with pytest.raises(ValueError, match=named):
        theory.ulysses_bytes_per_layer(SMALL, sp, 1, seq_len, 4)


def test_one_rank_sends_nothing():
    assert theory.ulysses_bytes_per_step(SMALL, 1, 1, 8, 4).total == 0
    assert theory.ring_bytes_per_layer(SMALL, 1, 1, 8, 4).total == 0


def test_ring_bytes():
    # k and v: 2*2 heads of 2 elements, 8/4 = 2 tokens, 2 bytes = 32 bytes, passed on 3 times.
    assert theory.ring_bytes_per_layer(SMALL, 4, 1, 8, 2) == theory.PassBytes(96, 0, 192)
    assert theory.ring_bytes_per_layer(CHECKPOINTED, 4, 1, 8, 2).total == 96 + 96 + 192
    with pytest.raises(ValueError, match="seq_len=9"):
        theory.ring_bytes_per_layer(SMALL, 2, 1, 9, 2)


@pytest.mark.parametrize(
    ("zero", "sp", "reduced", "gathered"),
    [
        # 100 parameters of 2 bytes on 4 ranks: 200 * 3/4 = 150, twice for an all-reduce
        pytest.param(0, 1, 300, 0, id="zero0"),
        pytest.param(1, 1, 300, 150, id="zero1"),
        pytest.param(2, 1, 300, 150, id="zero2"),
        pytest.param(3, 1, 150, 150, id="zero3"),
        pytest.param(1, 2, 600, 150, id="gradients travel in float32 under sp"),
        pytest.param(3, 2, 300, 150, id="zero3 under sp"),
    ],
)
def test_bytes_of_gradients_and_weights(zero, sp, reduced, gathered):
    found = theory.state_bytes(100, zero, world=4, element_bytes=2, sp=sp)
    assert found == theory.StateBytes(reduced, gathered)
    assert found.total == reduced + gathered


def test_zero_3_gathers_twice_in_its_first_step_and_what_is_too_much_to_keep():
    first = theory.state_bytes(100, 3, world=4, element_bytes=2, first_step=True, persistent=20)
    assert first == theory.StateBytes(150, 2 * 150 + 2 * 20 * 3 / 4)
    large = theory.state_bytes(3 * 10**9, 3, world=4, element_bytes=2)
    assert large.gathered == 2 * (3 + 2) * 10**9 * 3 / 4


def test_bytes_that_a_collective_sends():
    assert theory.sent_bytes("all_reduce", 800, 4) == 2 * 800 * 3 / 4
    assert theory.sent_bytes("reduce_scatter_tensor", 800, 4) == 800 * 3 / 4
    assert theory.sent_bytes("all_gather_into_tensor", 200, 4) == 200 * 3
    with pytest.raises(KeyError):
        theory.sent_bytes("gather", 1, 2)


def test_bus_bandwidth():
    assert theory.all_to_all_bus_bandwidth(8_000, seconds=2.0, ranks=4) == 3_000


@pytest.mark.parametrize(
    ("zero", "weights", "gradients", "optimizer"),
    [
        pytest.param(0, 200, 200, 1200, id="zero0"),
        pytest.param(1, 200, 200, 300, id="zero1"),
        pytest.param(2, 200, 50, 300, id="zero2"),
        pytest.param(3, 50, 50, 300, id="zero3"),
    ],
)
def test_model_state_in_bfloat16(zero, weights, gradients, optimizer):
    found = theory.model_state_bytes(100, zero, world=4, element_bytes=2)
    assert found == theory.ModelStateBytes(weights, gradients, optimizer)
    assert found.total == weights + gradients + optimizer


def test_float32_needs_no_master_copy_and_shards_round_up():
    assert theory.model_state_bytes(100, 0, 4, 4) == theory.ModelStateBytes(400, 400, 800)
    assert theory.model_state_bytes(101, 3, 4, 4) == theory.ModelStateBytes(104, 104, 208)


def test_activations():
    # Per token 4*8 + 2*2*(4+2) + 4*16 = 120 elements; b S / P = 1*8/2 = 4 tokens, 4 bytes.
    assert theory.live_layer_bytes(SMALL, 2, 1, 8, 4) == 1920
    assert theory.activation_bytes(SMALL, 2, 1, 8, 4) == 3 * 1920
    # Inputs of 3 layers: 3 * 4 bytes * 4 tokens * 8 wide = 384, and one live layer.
    assert theory.activation_bytes(CHECKPOINTED, 2, 1, 8, 4) == 384 + 1920


def test_activations_of_a_classic_transformer_are_near_the_published_34():
    # Full heads and a SwiGLU of 8/3 h, the same weights as a 4h MLP: 34 b S h in arXiv 2205.05198.
    classic = SMALL.model_copy(update={"hidden": 96, "heads": 8, "kv_heads": 8, "ffn": 256})
    assert theory.live_layer_bytes(classic, 1, 1, 1, 2) / 96 == pytest.approx(34, rel=0.12)


def test_logits():
    assert theory.logits_bytes(SMALL, sp=2, micro_batch=3, seq_len=8) == 3 * 4 * 12 * 10
