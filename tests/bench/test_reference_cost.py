"""What the exact reference costs, beside numbers worked out by hand."""

from __future__ import annotations

import pytest

from bench import theory
from bench.theory import reference_cost
from bench.trial import CommSpec, ModelSpec
from tests.bench.test_theory import LLAMA_3_8B, SMALL
from tests.factories import configuration


def small(**fields: object) -> object:
    """2 replicas of 3 sequences of 4 tokens: 24 tokens; replicas have equally many labels."""
    values = {
        "mask": "none",
        "model": SMALL,
        "world": 4,
        "sp": 2,
        "micro_batch": 3,
        "seq_len": 4,
        **fields,
    }
    return configuration(**values)


def test_scores_are_counted_in_whole_blocks():
    assert reference_cost.attention_pairs(4, block=4) == 16
    assert reference_cost.attention_pairs(8, block=4) == 16 + 32
    # a last block of 2 queries over 10 keys
    assert reference_cost.attention_pairs(10, block=4) == 48 + 20
    assert reference_cost.attention_pairs(3, block=4) == 9


def test_flops():
    # A layer: 8*576 = 4608, and q, k, v: 2 * (8*8 + 2*8*4) = 256; three of them 14592.
    # The lm_head: 6*80 = 480. A token's products: 15072; of 24 tokens 361728.
    # Attention: 4*4*2 = 32 a pair, 16 pairs, 3 layers, 4.5 passes, 6 sequences: 41472.
    assert theory.reference_flops(small()) == 361_728 + 41_472


def test_flops_of_8b_are_about_four_thirds_of_the_model_flops():
    """8 N a token where training has 6 N; attention 4.5 forward passes where training has 3."""
    c = configuration(model=LLAMA_3_8B, seq_len=8192, world=1, sp=1)
    model_flops = theory.model_flops_per_step(LLAMA_3_8B, 1, 1, 8192)
    assert 1.3 < theory.reference_flops(c) / model_flops < 1.5


def test_bytes_on_disk():
    # 1808 + 80 + 56 = 1944 parameters
    assert theory.reference_disk_bytes(small()) == 12 * 1944


def test_bytes_on_the_device():
    # Inputs: 8 * 24 tokens * 8 * (3 + 1) = 6144, which stay on the device.
    # A layer: weights 3*8*(576 + 16) = 14208; one sequence 8*4*(2*8 + 2*(16 + 8)) = 2048;
    # scores 3*8*4*4*4 = 1536, tiles 8 * 8*4*16 = 4096.
    # The loss: 3*8*11*8 = 2112, 2*8*4*8 = 512, logits 3*8*4*10 = 960: less.
    assert theory.reference_device_bytes(small()) == 6144 + 14_208 + 2048 + 4096
    assert theory.reference_host_bytes(small()) == 0


def test_where_replicas_differ_there_are_two_gradients():
    ragged = small(mask="ragged")
    assert theory.reference_disk_bytes(ragged) == 20 * 1944
    # a layer's weights, two gradients and one of a tile: 4*8*(576 + 16) = 18944
    assert theory.reference_device_bytes(ragged) == 6144 + 18_944 + 2048 + 4096
    assert theory.whole_reference_bytes(ragged) == 24 * 1944 + 34_560 + 2_880
    assert theory.reference_disk_bytes(small(mask="ragged", sp=4)) == 12 * 1944  # dp 1


def test_a_wide_vocabulary_makes_the_loss_the_peak():
    wide = SMALL.model_copy(update={"vocab": 10_000})
    # 3*8*10001*8 = 1920192; 512; logits 3*8*4*10000 = 960000
    assert theory.reference_device_bytes(small(model=wide)) == 6144 + 1_920_192 + 512 + 960_000


def test_8b_at_131072_tokens_fits_a_card_of_80_gb():
    c = configuration(model=LLAMA_3_8B, seq_len=131_072, world=8, sp=8)
    # 8 * 131072 * 4096 * 33 bytes of inputs are on the host
    assert theory.reference_host_bytes(c) == 8 * 131_072 * 4096 * 33
    # weights 3*8*(218103808 + 8192); sequence 8*131072*(8192 + 128*160); tiles 8 * 2**29
    expected = 24 * 218_112_000 + 8 * 131_072 * 28_672 + 8 * 2**29
    assert theory.reference_device_bytes(c) == expected
    assert expected < 40 * 2**30


def test_bytes_of_the_whole_graph():
    # 16*1944; activations 3 * 8*3*4*(32 + 4*(4 + 2) + 64) = 34560; logits 3*8*12*10 = 2880
    assert theory.whole_reference_bytes(small()) == 31_104 + 34_560 + 2_880


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"comm": CommSpec(name="nccl")}, True),
        # logits of 2^17 tokens * 10^4 words * 24 bytes: 31 GB
        ({"model": SMALL.model_copy(update={"vocab": 10_000}), "seq_len": 2**17}, True),
    ],
    ids=["small on CPU", "small on GPU", "large on CPU"],
)
def test_which_way_it_is_made_follows_from_the_configuration(
    fields: dict[str, object], expected: bool
):
    assert theory.reference_by_layers(small(**fields)) is expected


def test_checkpointing_and_tiles_do_not_change_which_way():
    """They are no part of `reference_key`, and one key must mean one way."""
    tiled: ModelSpec = SMALL.model_copy(update={"activation_checkpointing": True, "loss_tiles": 4})
    assert theory.whole_reference_bytes(small(model=tiled)) == theory.whole_reference_bytes(small())
