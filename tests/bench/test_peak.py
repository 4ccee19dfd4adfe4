"""The peak of memory by component, against numbers counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import theory
from bench.theory import Training
from bench.trial import CommName, CommSpec, ModelSpec
from tests import factories

# d = 2; 1944 parameters: 3 layers of 576, 7 norms of 8, two embeddings of 80.
SMALL = ModelSpec(name="small", layers=3, hidden=8, heads=4, kv_heads=2, ffn=16, vocab=10)
TRAINING = Training(
    SMALL,
    world=2,
    sp=2,
    zero=1,
    micro_batch=1,
    seq_len=8,
    element_bytes=4,
    whole_bucket=False,
    foreach=False,
)


def moment(training: Training, name: str) -> theory.PeakMemory:
    [found] = [one for one in theory.moments(training) if one.moment == name]
    return found


def test_a_layer_keeps_what_autograd_saves() -> None:
    # A token: norms 2*(4 + 2*4)*8 = 192; q, k 8 + 4, kernel's q, k, v 3*8, results 2*8 = 52
    # elements; SwiGLU 4*16 = 64; 116 elements of 4 bytes = 464; log-sum-exp 4*4 = 16.
    assert theory.layer_activation_bytes(TRAINING) == 4 * (192 + 464 + 16)
    # In 2 bytes: norms 2*(4 + 2*2)*8 = 128, 116 elements = 232, log-sum-exp 16.
    narrow = replace(TRAINING, element_bytes=2)
    assert theory.layer_activation_bytes(narrow) == 4 * (128 + 232 + 16)


def test_saved_activations() -> None:
    last_norm = 4 * (4 + 2 * 4) * 8
    assert theory.saved_activation_bytes(TRAINING) == 3 * 2688 + last_norm
    checkpointed = SMALL.model_copy(update={"activation_checkpointing": True})
    inputs = 3 * 4 * 4 * 8
    assert theory.saved_activation_bytes(replace(TRAINING, model=checkpointed)) == (
        inputs + last_norm
    )


@pytest.mark.parametrize(
    ("zero", "weights", "gradients", "optimizer", "buffers"),
    [
        pytest.param(0, 4 * 1944, 0, 8 * 1944, 0, id="zero0"),
        pytest.param(1, 4 * 1944, 0, 12 * 972, 0, id="zero1"),
        pytest.param(2, 4 * 1944, 0, 12 * 972, 0, id="zero2"),
        # its bucket, and the weights that it gathered
        pytest.param(3, 4 * 972, 4 * 972, 8 * 972, 4 * 1944 + 4 * 1944, id="zero3"),
    ],
)
def test_the_loss_holds_three_copies_of_the_logits(
    zero: int, weights: int, gradients: int, optimizer: int, buffers: int
) -> None:
    found = moment(replace(TRAINING, zero=zero), "loss")
    assert found == theory.PeakMemory(
        "loss", weights, gradients, optimizer, buffers, 8448, 3 * 4 * 4 * 10
    )
    assert found.total == weights + gradients + optimizer + buffers + 8448 + 480


def test_tiles_hold_a_part_of_the_logits_and_the_heads_gradient() -> None:
    tiled = replace(TRAINING, model=SMALL.model_copy(update={"loss_tiles": 3}))
    found = moment(tiled, "loss")  # 4 tokens in tiles of 2
    assert (found.logits, found.gradients) == (3 * 4 * 2 * 10, 4 * 80)


def test_the_bucket_counts_whole_where_allocating_counts() -> None:
    whole = replace(TRAINING, whole_bucket=True, reduce_bucket=1000)
    assert moment(whole, "loss").buffers == 4000
    assert moment(replace(whole, zero=3), "loss").buffers == 4000 + 4 * 1944
    assert moment(replace(whole, zero=0), "loss").buffers == 0


def test_the_step_needs_a_gradient_and_two_temporaries() -> None:
    assert moment(TRAINING, "optimizer").optimizer == (12 + 12) * 972
    plain = moment(replace(TRAINING, zero=0), "optimizer")
    # the largest tensor is 16 x 8
    assert (plain.gradients, plain.optimizer) == (4 * 1944, 8 * 1944 + 2 * 4 * 128)


def test_adam_over_lists_needs_one_temporary_of_all_it_is_handed() -> None:
    lists = replace(TRAINING, foreach=True)
    # the partition of 972 is one tensor: its gradient, and the root of its second moment
    assert moment(lists, "optimizer").optimizer == (12 + 8) * 972
    assert moment(replace(lists, zero=3), "optimizer").optimizer == (8 + 8) * 972
    # without ZeRO Adam has all 1944 parameters, not the largest tensor of 128
    plain = moment(replace(lists, zero=0), "optimizer")
    assert (plain.gradients, plain.optimizer) == (4 * 1944, 8 * 1944 + 4 * 1944)
    narrow = moment(replace(lists, zero=0, element_bytes=2), "optimizer")
    assert (narrow.gradients, narrow.optimizer) == (2 * 1944 + 4 * 1944, 12 * 1944 + 4 * 1944)


def test_zero3_steps_through_sub_groups_of_its_partition() -> None:
    parts = replace(TRAINING, zero=3, sub_group=500)
    assert moment(parts, "optimizer").optimizer == 8 * 972 + 12 * 500
    assert moment(replace(parts, foreach=True), "optimizer").optimizer == 8 * 972 + 8 * 500
    assert moment(replace(parts, sub_group=973), "optimizer").optimizer == (8 + 12) * 972
    assert moment(replace(parts, zero=2), "optimizer").optimizer == (12 + 12) * 972


def test_the_peak_is_the_highest_moment() -> None:
    assert theory.peak_memory(TRAINING).total == max(m.total for m in theory.moments(TRAINING))
    long = replace(TRAINING, seq_len=4096, model=SMALL.model_copy(update={"vocab": 1000}))
    assert theory.peak_memory(long).moment == "loss"


def test_longest_sequence_is_the_last_that_fits() -> None:
    limit = theory.peak_memory(replace(TRAINING, seq_len=96)).total
    assert theory.longest_sequence(TRAINING, limit, step=8, most=10_000) == 96
    assert theory.longest_sequence(TRAINING, limit - 1, step=8, most=10_000) == 88
    assert theory.longest_sequence(TRAINING, limit, step=8, most=40) == 40
    assert theory.longest_sequence(TRAINING, 1000, step=8, most=40) == 0


def test_training_of_a_configuration() -> None:
    options = {"zero_optimization": {"reduce_bucket_size": 5e5, "sub_group_size": 1e6}}
    found = theory.training_of(
        factories.configuration(dtype="bfloat16", deepspeed=options, zero=2, seq_len=64)
    )
    assert found == Training(
        factories.TINY, 4, 2, 2, 1, 64, 2, 500_000, foreach=False, sub_group=1_000_000
    )
    assert theory.training_of(factories.configuration()).reduce_bucket == 500_000_000


@pytest.mark.parametrize(
    ("comm", "optimizer", "foreach"),
    [
        pytest.param("nccl", None, True, id="gpu"),
        pytest.param("nccl_over_gloo", None, False, id="cpu"),
        pytest.param("nccl", {"type": "AdamW", "params": {"foreach": False}}, False, id="asked"),
        pytest.param("nccl", {"type": "AdamW", "params": {"lr": 0.1}}, True, id="not-asked"),
        pytest.param("gloo", {"type": "Adam", "params": {"foreach": True}}, True, id="cpu-asked"),
    ],
)
def test_adam_steps_over_lists_on_a_gpu_or_when_asked(
    comm: CommName, optimizer: dict[str, object] | None, foreach: bool
) -> None:
    options = {} if optimizer is None else {"optimizer": optimizer}
    c = factories.configuration(comm=CommSpec(name=comm), deepspeed=options)
    assert theory.training_of(c).foreach is foreach
